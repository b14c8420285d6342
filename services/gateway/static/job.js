// One film's page: progress, the strip of its segments, what can be done with it.
import { announce, ask, clock, post, subscribe } from "./stream.js";
import { fragment, update } from "./jobs.js";
import { doneOf, stateOf } from "./segments.js";

const WORDS = { waiting: "waiting", running: "at work", retrying: "trying again", done: "done", failed: "failed" };
const LINGER_MILLISECONDS = 120;

class Job extends HTMLElement {
  connectedCallback() {
    this.id_ = this.dataset.job;
    this.phase = this.dataset.phase;
    this.strip = this.querySelector("ss-strip");
    this.player = this.querySelector("ss-player");
    this.segments = null;
    this.times();
    this.state = this.dataset.strip ? JSON.parse(this.dataset.strip) : null;
    this.addEventListener("click", (event) => this.act(event));
    this.addEventListener("seek-segment", (event) => this.player?.seekTo(event.detail.seconds, true));
    this.release = subscribe((name, data) => {
      if (name === "job" && data.job_id === this.id_) this.receive(data);
      if (name === "deleted" && data.job_id === this.id_) location.assign("/jobs?removed=1");
      if (name === "open") this.refresh();
    });
    // What happened between the making of this page and the stream's first word would be missed otherwise. Another tab
    // may keep the stream; then it is open already and says nothing.
    this.refresh();
  }

  disconnectedCallback() { this.release?.(); }

  async refresh() {
    const job = await ask(`/api/v1/jobs/${this.id_}`).catch(() => null);
    if (job) this.receive(job);
    this.segments = this.state = null;
    this.loadSegments();
  }

  receive(job) {
    update(this, job);
    if (job.strip) this.state = job.strip;
    const total = job.progress.segments.total;
    if (!this.segments || (total !== null && this.segments.length !== total)) this.loadSegments();
    else this.show();
    this.player?.know(job, this.segments, this.state);
    this.develop();
    if (job.phase !== this.phase) {
      this.phase = this.dataset.phase = job.phase;
      if (!["completed", "failed", "cancelled"].includes(job.phase)) this.classList.add("making");
      announce(job.stage_label);
      const over = ["completed", "failed", "cancelled"].includes(job.phase);
      for (const shown of this.querySelectorAll("progress.long, [data-stages]")) shown.hidden = over;
      for (const stage of this.querySelectorAll("[data-phases]")) {
        if (stage.dataset.phases.split(" ").includes(job.phase)) stage.setAttribute("aria-current", "step");
        else stage.removeAttribute("aria-current");
      }
      this.about();
    } else if (job.playback.ready && !this.wasReady) {
      this.about();
    }
    this.wasReady = job.playback.ready;
  }

  async about() {
    const place = this.querySelector("[data-about]");
    const fresh = place && (await fragment(`/jobs/${this.id_}/about`));
    if (fresh) place.replaceChildren(fresh);
    this.times();
  }

  /** The server writes UTC; people here have a clock of their own, the one that the segments' logs show. */
  times() {
    for (const time of this.querySelectorAll(".history time")) {
      const at = new Date(time.dateTime);
      time.textContent = `${at.toLocaleDateString()} ${at.toLocaleTimeString([], { hour12: false })}`;
    }
  }

  async loadSegments() {
    if (this.loading) return;
    this.loading = true;
    try {
      const { segments } = await ask(`/api/v1/jobs/${this.id_}/segments`);
      this.segments = segments.length ? segments : null;
      if (!this.state && this.segments) this.state = stateOf(segments);
      this.show();
      this.player?.know(null, this.segments, this.state);
      this.develop();
    } catch { /* the next event asks again */ }
    this.loading = false;
  }

  show() {
    const section = this.querySelector("[data-strip-section]");
    if (!section || !this.segments) return;
    section.hidden = false;
    // What the colours mean matters while there are several.
    const done = doneOf(this.state);
    section.toggleAttribute("data-over", this.segments.every((segment) => done(segment.index)));
    this.strip.show(this.segments, this.state);
  }

  /** Until somebody plays it, the screen shows what was converted last. */
  develop() {
    const { player } = this;
    const done = doneOf(this.state);
    if (!this.segments || !player?.base || player.begun || this.classList.contains("theatre")) return;
    const fresh = this.segments.findLast((segment) => done(segment.index) && !this.developed?.has(segment.index));
    this.developed = new Set(this.segments.filter((segment) => done(segment.index)).map((segment) => segment.index));
    const over = this.developed.size === this.segments.length;
    if (over) player.video.poster = `${player.base}poster.jpg`;
    else if (fresh) player.video.poster = `${player.base}frame/${fresh.index}`;
  }

  async act(event) {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy) {
      const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
      const words = button.dataset.copy.replace(" /", () => ` ${location.origin}/`);
      const key = local ? "" : ' -H "Authorization: Bearer $STEREOSPOT_KEY"';
      await navigator.clipboard.writeText(words + key).catch(() => {});
      announce("Copied");
      button.textContent = "Copied";
      return;
    }
    const action = button.dataset.action;
    if (!action || (button.dataset.confirm && !confirm(button.dataset.confirm))) return;
    button.disabled = true;
    const refused = this.querySelector("[data-refused]");
    refused.hidden = true;
    try {
      await post(`/api/v1/jobs/${this.id_}/${action}`);
      if (action === "delete") location.assign("/jobs?removed=1");
    } catch (problem) {
      refused.textContent = problem.message;
      refused.hidden = false;
      button.disabled = false;
    }
  }
}

/** A segment whose worker died says nothing; the next one that takes it begins with a higher attempt. */
const stateOfCell = (cell) => (cell?.state === "running" && cell.attempt > 1 ? "retrying" : (cell?.state ?? "waiting"));

/** "in 1.4 s, 34 fps" */
const took = (told) => (told?.seconds ? `in ${told.seconds.toFixed(1)} s, ${told.fps < 10 ? told.fps.toFixed(1) : Math.round(told.fps)} fps` : "");

class Strip extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", (event) => this.choose(event));
    this.addEventListener("pointerover", (event) => this.tell(event.target));
    this.addEventListener("focusin", (event) => this.tell(event.target));
    this.addEventListener("keydown", (event) => this.move(event));
  }

  show(segments, state) {
    if (this.grid?.children.length !== segments.length) this.build(segments);
    const done = doneOf(state);
    const cells = new Map((state?.cells ?? []).map((item) => [item.index, item]));
    segments.forEach((segment, position) => {
      const cell = cells.get(segment.index);
      const name = done(segment.index) ? "done" : stateOfCell(cell);
      const button = this.grid.children[position];
      if (button.className.split(" ")[0] !== name || button.attempt !== cell?.attempt) {
        button.className = name;
        button.attempt = cell?.attempt;
        button.cell = cell;
        button.setAttribute("aria-label", this.words(segment, name, cell));
      }
    });
  }

  words(segment, name, cell) {
    const span = `${clock(segment.start_seconds)} to ${clock(segment.start_seconds + segment.duration_seconds)}`;
    const told = name === "done" ? segment : cell;
    const more = [took(told), told?.worker_id ? `on ${told.worker_id}` : "", told?.attempt > 1 ? `attempt ${told.attempt}` : "", told?.error ? told.error.reason : ""].filter(Boolean);
    return [`Segment ${segment.index}, ${span}: ${WORDS[name]}`, ...more].join(", ");
  }

  build(segments) {
    this.grid = document.createElement("div");
    this.grid.className = "strip";
    this.grid.setAttribute("role", "group");
    this.grid.setAttribute("aria-label", `${segments.length} segments; press one to watch from there`);
    segments.forEach((segment, position) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "unknown";
      button.segment = segment;
      button.tabIndex = position ? -1 : 0;
      this.grid.append(button);
    });
    this.grid.style.setProperty("--cell", segments.length > 400 ? "0.5rem" : segments.length < 24 ? "2.2rem" : "0.9rem");
    this.replaceChildren(this.grid);
  }

  choose(event) {
    const button = event.target.closest("button");
    if (!button) return;
    this.dispatchEvent(new CustomEvent("seek-segment", { bubbles: true, detail: { seconds: button.segment.start_seconds } }));
  }

  tell(target) {
    const note = this.parentElement?.querySelector("[data-cell-note]");
    if (!note || !target.segment) return;
    const words = note.querySelector("p");
    words.textContent = target.getAttribute("aria-label");
    note.querySelector("img")?.remove();
    note.querySelector("ol").replaceChildren();
    note.querySelector("button").hidden = true;
    const hls = this.closest("ss-job")?.querySelector("ss-player")?.dataset.hls;
    if (hls && target.className.startsWith("done")) {
      const picture = new Image(160, 90);
      picture.alt = "";
      picture.src = hls.replace("master.m3u8", `frame/${target.segment.index}`);
      note.prepend(picture);
    }
    // Whoever only passes by asks nothing of the server.
    clearTimeout(this.lingering);
    this.lingering = setTimeout(() => this.detail(target, note, words), LINGER_MILLISECONDS);
  }

  /** What happened to one segment: the log of its attempts, and a way to go on where it ended. */
  async detail(target, note, words) {
    const job = this.closest("ss-job")?.dataset.job;
    const { segment } = target;
    const known = job && (await ask(`/api/v1/jobs/${job}/segments/${segment.index}`).catch(() => null));
    if (!known || !words.textContent.startsWith(`Segment ${segment.index},`)) return;
    Object.assign(segment, { worker_id: known.worker_id, attempt: known.attempt, seconds: known.seconds, fps: known.fps });
    target.setAttribute("aria-label", this.words(segment, target.className.split(" ")[0], target.cell));
    if (words.textContent !== target.getAttribute("aria-label")) words.textContent = target.getAttribute("aria-label");
    note.querySelector("ol").replaceChildren(...known.log.slice(-6).map((line) => {
      const item = document.createElement("li");
      const time = document.createElement("time");
      time.dateTime = line.at;
      time.textContent = new Date(line.at).toLocaleTimeString([], { hour12: false });
      item.append(time, ` ${[WORDS[line.state], took(line), `on ${line.worker_id}`, line.error?.reason ?? ""].filter(Boolean).join(", ")}`);
      return item;
    }));
    note.querySelector("button").hidden = known.state !== "failed";
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -1e6, End: 1e6 }[event.key];
    if (!step || !event.target.segment) return;
    event.preventDefault();
    const buttons = [...this.grid.children];
    const next = buttons[Math.min(buttons.length - 1, Math.max(0, buttons.indexOf(event.target) + step))];
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  here(index) {
    this.grid?.querySelector(".here")?.classList.remove("here");
    this.grid?.children[index]?.classList.add("here");
  }
}

customElements.define("ss-strip", Strip);
customElements.define("ss-job", Job);
