// The player: plays the run of segments that is there, asks for what is not, and shows the stereo picture several ways.
// The film begins at 0 with its first picture; an HLS playlist begins at its anchor, so film time = anchor's start + currentTime.
import { FINISHED } from "./cards.js";
import { announce, clock, lengthClock, post } from "./stream.js";
import { build, follow, menu, paint } from "./controls.js";
import { isStereo, lens } from "./glass.js";
import { help, press } from "./keys.js";
import { nameOf } from "./languages.js";
import { Line } from "./line.js";
import { outlive } from "./outlive.js";
import { Rest } from "./rest.js";
import { Text } from "./text.js";
import { enter, exchange, hasHeadset } from "./xr.js";

const REST_MILLISECONDS = 400;
const NOTE_MILLISECONDS = 6000;
const MODES = [["left", "One eye"], ["raw", "Both eyes"], ["anaglyph", "Anaglyph"], ["wiggle", "Wiggle"]];

class Player extends HTMLElement {
  connectedCallback() {
    this.video = this.querySelector("video");
    this.screen = this.querySelector(".screen");
    this.curtain = this.querySelector("[data-curtain]");
    this.anchor = { index: 0, seconds: 0 };
    this.segments = null;
    this.length = Number(this.dataset.duration) || 0;
    this.generation = Number(this.dataset.generation);
    this.line = new Line(this);
    build(this);
    paint(this);
    this.text = new Text(this);
    this.looks();
    this.rest = new Rest(this);
    for (const name of ["timeupdate", "durationchange", "play", "pause", "ended", "loadeddata", "volumechange"]) {
      this.video.addEventListener(name, () => this.tick());
    }
    this.video.addEventListener("loadeddata", () => this.reveal());
    this.video.addEventListener("ended", () => this.goOn());
    // Films begin in black: until somebody plays or seeks, the poster stays.
    for (const name of ["play", "seeking"]) this.video.addEventListener(name, () => this.begin());
    // While it seeks there may be nothing to draw; a paused film draws by itself no more.
    this.video.addEventListener("seeked", () => { if (this.glass) this.look(this.view.value, false); });
    for (const name of ["waiting", "playing", "pause", "ended"]) {
      this.video.addEventListener(name, () => this.classList.toggle("waiting-for-data", name === "waiting"));
    }
    // A page that is nothing but the picture gives it every key; beside other things it must have the focus.
    this.ears = this.closest(".theatre") ? document : this;
    this.press = (event) => press(this, event);
    document.addEventListener("keydown", this.press);
    document.addEventListener("themechange", () => paint(this));
    this.addEventListener("fullscreenchange", () => paint(this));
    // Whoever was handed this page has nobody to ask but the page itself, which leads to the film as it is now.
    this.addEventListener("gone", () => { if (!this.closest("ss-job")) location.reload(); });
    if (this.dataset.film && this.direct()) this.playFilm();
    else if (this.dataset.hls) this.load(this.dataset.hls, this.anchor);
    // The page names the file itself: its first picture may have been there before this script.
    if (this.video.readyState >= 2) this.reveal();
    this.tick();
  }

  disconnectedCallback() {
    this.turnTo(null);
    this.text.leave();
    this.rest.leave();
    document.removeEventListener("keydown", this.press);
  }

  /** Whether this browser plays the finished file as it is; HLS carries the same pictures otherwise. */
  direct() { return this.dataset.container === "mp4" || this.dataset.container === "mov"; }

  /** What played, or is on its way, gives way to what is at `address`; `load(at, play)` begins that anew. */
  turnTo(address, load, play) {
    this.hls?.destroy();
    this.hls = null;
    this.video.onerror = null;
    this.address = address;
    this.line.follow(address, load, play);
  }

  /** The finished film; `again` if it broke off. */
  playFilm(at = 0, play = false, again = false) {
    this.turnTo(this.dataset.film, (place, wanted) => this.playFilm(place, wanted, true), play);
    this.whole = true;
    if (again || this.video.getAttribute("src") !== this.dataset.film) this.video.src = this.dataset.film;
    this.video.onerror = () => this.line.broke();
    if (at) this.video.currentTime = at;
    if (play) this.video.play().catch(() => {});
    // The page names the file itself: it may have failed before this script.
    if (this.video.error) this.line.broke();
  }

  /** A stream ends where its sound broke off; the file has all of both. */
  goOn() {
    if (!this.whole && this.dataset.film && this.direct() && this.now < this.length - 1) this.playFilm(this.now, true);
  }

  /** The stream in place of the file, at the same place: it has a choice of sound. */
  stream() {
    if (!this.whole || !this.dataset.hls || !this.dataset.hlsjs) return;
    this.load(this.dataset.hls, { index: 0, seconds: 0 }, !this.video.paused, this.video.currentTime);
  }

  async load(address, anchor, play = false, at = 0) {
    this.turnTo(address, (place, wanted) => this.load(address, anchor, wanted, place || at), play);
    this.anchor = anchor;
    this.whole = false;
    const Hls = this.dataset.hlsjs ? (await import(this.dataset.hlsjs)).default : null;
    if (this.address !== address) return;
    if (Hls?.isSupported()) {
      // Work goes on for long: keep asking for a while. The run's beginning is where to start, not its live edge.
      const patient = { default: { maxTimeToFirstByteMs: 10_000, maxLoadTimeMs: 20_000, timeoutRetry: { maxNumRetry: 20, retryDelayMs: 500, maxRetryDelayMs: 4000 }, errorRetry: { maxNumRetry: 200, retryDelayMs: 1000, maxRetryDelayMs: 8000, backoff: "exponential" } } };
      const hls = (this.hls = new Hls({ startPosition: at, backBufferLength: 60, maxBufferLength: 30, manifestLoadPolicy: patient, playlistLoadPolicy: patient, fragLoadPolicy: { default: { ...patient.default, maxLoadTimeMs: 60_000 } } }));
      hls.on(Hls.Events.ERROR, (_, data) => this.line.heard(data));
      hls.on(Hls.Events.AUDIO_TRACKS_UPDATED, (_, { audioTracks }) => this.sounds(audioTracks));
      hls.loadSource(address);
      hls.attachMedia(this.video);
    } else {
      this.video.onerror = () => this.line.broke();
      this.video.src = address;
      if (at) this.video.currentTime = at;
    }
    if (play) this.video.play().catch(() => {});
  }

  /** A choice where there is one; what was chosen holds for the next run, too. */
  sounds(tracks) {
    if (tracks.length < 2) return;
    if (this.sound) this.hls.audioTrack = Number(this.sound.value);
    else {
      this.sound = menu(this, "Sound", null, tracks.map(({ name, lang }, index) => [nameOf(name, lang), index]), (index) => { this.hls.audioTrack = Number(index); });
      this.sound.selectedIndex = Math.max(0, tracks.findIndex((track) => track.default));
    }
  }

  /** What the page learns of the job: where it can play, how long it is, what is converted. */
  know(job, segments, state) {
    if (job && (job.generation > this.generation || this.line.isGone(job.playback))) this.leave(job);
    if (segments) this.segments = segments;
    if (state) this.state = state;
    if (job) {
      if (job.duration_seconds) this.length = job.duration_seconds;
      if (job.playback.film) {
        this.dataset.film = job.playback.film;
        this.dataset.container = job.outputs[0].container;
        if (!job.playback.hls) outlive(this);
      }
      if (job.playback.poster && !this.video.poster && !this.begun) this.video.poster = job.playback.poster;
      if (job.playback.hls) this.dataset.hls = job.playback.hls; // another day, another token
      if (!this.address) this.find(job);
      const over = ["failed", "cancelled"].includes(job.phase);
      this.hidden = !job.playback.ready && over;
      // What is waited for may be there all the same: the server knows, and says so of what never comes.
      if (this.aim && over && job.phase !== this.phase) this.seekTo(this.aim.seconds, this.aim.play);
      this.phase = job.phase;
    }
    if (job && job.attempt !== this.attempt) {
      const again = Boolean(this.attempt);
      this.attempt = job.attempt;
      // What a failure left undone may come now; a list that has ended is not asked for by itself.
      this.text.over = false;
      if (again && this.hls?.latestLevelDetails?.live === false) this.load(this.address, this.anchor, !this.video.paused, Math.max(0, this.video.currentTime - 0.1));
    }
    if (job?.playback.ready) this.text.load();
    if (this.segments && !this.length) this.length = this.segments.reduce((sum, item) => sum + item.duration_seconds, 0);
    this.comeBack();
    paint(this);
    this.tick();
  }

  /** What plays is history: the film is made anew, or it has another address. Whoever watched goes on where they were. */
  leave(job) {
    if (this.begun) this.left ??= { seconds: this.now, play: this.line.plays };
    const anew = job.generation > this.generation;
    this.generation = job.generation;
    this.turn = (this.turn ?? 0) + 1; // nobody waits for what was sought there
    this.turnTo(null);
    this.video.removeAttribute("src");
    this.video.load();
    this.classList.remove("waiting-for-data");
    Object.assign(this, { aim: null, whole: false, anchor: { index: 0, seconds: 0 } });
    for (const name of ["hls", "film", "container"]) delete this.dataset[name];
    this.peek.forget();
    this.text.forget();
    if (!anew) return;
    Object.assign(this, { segments: null, state: null, length: 0 });
    this.video.removeAttribute("poster");
    this.say(`The film is made anew. It plays from ${this.left ? clock(this.left.seconds) : "the first converted second"} on as soon as that is there.`);
  }

  /** What there is to play; whoever was somewhere waits for that place. */
  find({ phase, playback }) {
    const { seconds, play } = this.left ?? {};
    const there = this.dataset.film && this.direct();
    if (!there && (!playback.hls || (this.left && !FINISHED.has(phase)))) return;
    this.left = null;
    if (there) this.playFilm(seconds, play);
    else this.load(playback.hls, this.anchor, play, seconds);
  }

  /** To where somebody was, as soon as the plan goes so far. */
  comeBack() {
    const end = this.segments?.at(-1);
    if (!this.left || !end || end.start_seconds + end.duration_seconds <= this.left.seconds) return;
    this.seekTo(this.left.seconds, this.left.play);
  }

  /** The folder of this film's addresses. */
  get base() { return (this.dataset.hls ?? this.dataset.film)?.replace(/(master\.m3u8|film)$/, "") ?? null; }

  get now() { return (this.whole ? 0 : this.anchor.seconds) + (this.line.place ?? this.video.currentTime ?? 0); }

  /** A step on the scrubber: the place moves at once; what must be asked for is asked for once the keys rest. */
  step(seconds) {
    this.scrub.value = Number(this.scrub.value) + seconds;
    this.scrub.dispatchEvent(new Event("input"));
    clearTimeout(this.resting);
    const rest = () => this.scrub.dispatchEvent(new Event("change"));
    if (this.has(Number(this.scrub.value))) rest();
    else this.resting = setTimeout(rest, REST_MILLISECONDS);
  }

  /** Where the run that is loaded ends, in film time. */
  get edge() {
    const ranges = this.video.seekable;
    const end = this.hls ? (this.video.duration === Infinity || Number.isNaN(this.video.duration) ? 0 : this.video.duration) : ranges.length ? ranges.end(ranges.length - 1) : 0;
    return (this.whole ? 0 : this.anchor.seconds) + end;
  }

  /** Whether a place is in the run that is loaded. */
  has(seconds) { return this.whole || (seconds >= this.anchor.seconds && seconds < this.edge - 0.05); }

  /**
   * Go to a place of the film, and play on if it played; a part that is not in the run is asked for first, and there
   * before the middle is done.
   */
  async seekTo(seconds, play = this.line.plays || Boolean(this.aim?.play)) {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    this.left = null;
    if (this.has(seconds)) {
      if (this.aim) this.curtain.hidden = true;
      this.aim = null;
      const place = seconds - (this.whole ? 0 : this.anchor.seconds);
      this.video.currentTime = place;
      this.line.wants(place, play);
      if (play) this.video.play().catch(() => {});
      return;
    }
    // Browsers offer no choice of a file's sound: where there is one, the runs go on.
    if (this.dataset.film && this.direct() && !this.sound) {
      this.playFilm(seconds, play);
      return;
    }
    // On the page that somebody was handed there is nobody to ask: it goes as far as its stream.
    if (!this.closest("ss-job")) {
      if (this.dataset.film) this.video.currentTime = this.edge;
      else this.note(`Not converted yet. So far the film goes to ${lengthClock(this.edge)}.`);
      this.tick();
      return;
    }
    this.aim = { seconds, play };
    const meanwhile = [() => turn === this.turn, "Converting this part first"];
    try {
      this.video.pause();
      const found = await this.line.until(() => post(`/api/v1/jobs/${this.dataset.job}/seek`, { seconds }), ...meanwhile);
      if (!(await this.line.comes(found.hls, ...meanwhile))) return;
      this.begin();
      await this.load(found.hls, { index: found.segment_index, seconds: found.start_seconds }, play);
      this.curtain.hidden = true;
    } catch (problem) {
      if (turn === this.turn) this.say(problem.message, true);
    }
    if (turn === this.turn) this.aim = null;
  }

  say(text, wrong = false) {
    this.curtain.textContent = text;
    this.curtain.hidden = false;
    announce(text, wrong);
  }

  /** Say something for a while. */
  note(text) {
    this.say(text);
    clearTimeout(this.noting);
    this.noting = setTimeout(() => { if (this.curtain.textContent === text) this.curtain.hidden = true; }, NOTE_MILLISECONDS);
  }

  reveal() {
    this.curtain.hidden = true;
    if (this.glass) this.look(this.view.value, false);
    this.text.load();
  }

  // ---- controls ----
  /** Whether the film has the right eye first. */
  get swapped() { return "swapped" in this.dataset; }

  /** The ways to look at a stereo picture, where there are two eyes in it and the browser draws. */
  looks() {
    const swap = this.bar.querySelector("[data-do=swap]");
    if (isStereo(this.dataset.layout)) this.glass = lens(this.video, this.dataset.layout);
    if (!this.glass) {
      swap.remove();
      return;
    }
    this.glass.swap = this.swapped;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const modes = MODES.filter(([value]) => !(calm && value === "wiggle"));
    this.view = menu(this, "View", null, modes.map(([value, name]) => [name, value]), (value) => this.look(value));
    hasHeadset().then((there) => { this.bar.querySelector("[data-do=headset]").hidden = !there; });
    let kept = null;
    try { kept = localStorage.getItem("view"); } catch { /* then the default */ }
    this.view.value = modes.some(([value]) => value === kept) ? kept : "left";
    this.look(this.view.value, false);
  }

  begin() {
    if (this.begun) return;
    this.begun = true;
    // A place that is shown and not played would hide behind it.
    this.video.removeAttribute("poster");
    if (this.glass) this.look(this.view.value, false);
  }

  look(mode, chosen = true) {
    if (chosen) this.begun = true;
    // Before the first frame there is nothing to draw: the poster stays.
    const raw = mode === "raw" || !this.begun || this.video.readyState < 2;
    this.glass.canvas.hidden = raw;
    this.glass.show(raw ? null : mode);
    this.video.style.setProperty("opacity", raw ? "1" : "0");
    this.text?.speak();
    if (!chosen) return;
    try { localStorage.setItem("view", mode); } catch { /* not kept then */ }
  }

  toggle() {
    if (this.video.paused) this.video.play().catch((problem) => { if (problem.name !== "AbortError" && !this.video.error) this.say("Nothing to play yet."); });
    else this.video.pause();
  }

  mute() {
    const { video } = this;
    const silent = video.muted || video.volume === 0;
    if (silent && video.volume === 0) video.volume = 1;
    video.muted = !silent;
  }

  swap() {
    this.glass.swap = !this.glass.swap;
    this.bar.querySelector("[data-do=swap]").setAttribute("aria-pressed", this.glass.swap !== this.swapped);
    if (this.immersed) exchange(this.immersed, this.glass.swap);
    this.glass.draw();
  }

  async headset() {
    const button = this.bar.querySelector("[data-do=headset]");
    if (this.immersed) {
      this.immersed.session.end();
      return;
    }
    try {
      this.immersed = await enter(this.video, this.dataset.layout, { swap: this.glass.swap, words: () => this.text.said, seek: (seconds) => this.step(seconds) });
      this.immersed.session.addEventListener("end", () => { this.immersed = null; button.textContent = "Enter VR"; });
      button.textContent = "Leave VR";
      if (this.immersed.silent && this.text.found) this.note("This headset shows the film without its subtitles.");
      this.video.play().catch(() => {});
    } catch (problem) {
      this.say(`The headset did not start: ${problem.message}`, true);
    }
  }

  keys() { help(this); }

  full() {
    // Its button has done its part: the keys that follow mean the film, and the bar may go.
    this.screen.focus({ preventScroll: true });
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.requestFullscreen) this.requestFullscreen().catch(() => {});
    // A telephone that gives the whole screen to videos alone shows it as it is, without our controls.
    else this.video.webkitEnterFullscreen?.();
  }

  tick() {
    follow(this);
    this.here();
    this.text?.speak();
  }

  here() {
    if (!this.segments) return;
    const index = this.segments.findLastIndex((item) => item.start_seconds <= this.now + 0.01);
    if (index !== this.lastHere) {
      this.lastHere = index;
      this.closest("ss-job")?.querySelector("ss-strip")?.here(index);
    }
  }
}

customElements.define("ss-player", Player);
