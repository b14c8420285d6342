// Subtitles and chapters of a film: the menus in the player's bar, and the words over the picture.
import { menu } from "./controls.js";
import { isStereo } from "./glass.js";
import { nameOf } from "./languages.js";
import { clock, secondsOf } from "./stream.js";

const AGAIN_MILLISECONDS = 3000; // calls come with every segment: of many, one asks
const UNASKED_MILLISECONDS = 10_000; // subtitles come after the last of the sound, of which no segment tells

export class Text {
  constructor(player) {
    this.player = player;
    this.cues = null;
    this.next = 0;
    this.late = 0; // where the first picture lies by the clock of the cues; a stream begins with it, a file does not
    this.due = Infinity; // when it asks by itself
    this.said = ""; // what is to be read now
    this.chosen = ""; // whose words these are
  }

  /** By how much the clock of cues and chapters is ahead of the player's. */
  get ahead() { return this.player.whole ? 0 : this.late; }

  /** Ask what there is; what is not there yet is asked for again, until the server says that no more will come. */
  load() {
    if (this.player.base && !this.over) this.wake(Math.max(0, this.next - performance.now()));
  }

  wake(wait) {
    const at = performance.now() + wait;
    if (at >= this.due) return;
    this.leave();
    this.due = at;
    this.later = setTimeout(() => { this.due = Infinity; this.ask(); }, wait);
  }

  /** What there is has another address from now on, and may be more. */
  forget() {
    this.leave();
    this.over = false;
    this.next = 0;
  }

  leave() {
    clearTimeout(this.later);
    this.due = Infinity;
  }

  async ask() {
    const { player } = this;
    const { base } = player;
    if (!base) return;
    this.next = performance.now() + AGAIN_MILLISECONDS;
    const answer = await fetch(`${base}tracks.json`).catch(() => null);
    if (!player.isConnected) return;
    if (answer?.status !== 404 || answer.headers.has("Retry-After")) this.wake(UNASKED_MILLISECONDS);
    if (!answer?.ok) return;
    const { subtitles, chapters, sounds, more, late_seconds } = await answer.json();
    this.late = late_seconds ?? 0;
    this.over = !more;
    if (this.over) this.leave();
    if (sounds.length > 1) player.stream();
    if (subtitles.length) this.offer(subtitles.map((item) => [nameOf(item.name, item.language), item.uri]));
    if (chapters.length && !this.chaptered) {
      this.chaptered = true;
      const place = (seconds) => Math.max(0, seconds - this.ahead);
      const entries = chapters.map((item, index) => [`${clock(place(item.start_seconds))} ${item.title || `Chapter ${index + 1}`}`, item.start_seconds]);
      menu(player, "Chapters", "Chapters", entries, (seconds, select) => {
        if (seconds !== "") player.seekTo(place(Number(seconds)), true);
        select.value = "";
      });
    }
  }

  /** Subtitles to choose from, in the film's order, whichever of them are there first. */
  offer(entries) {
    if (this.found) {
      const there = new Set(Array.from(this.found.options, (option) => option.value));
      entries.forEach(([name, uri], index) => {
        if (!there.has(uri)) this.found.add(new Option(name, uri), this.found.options[index + 1] ?? null);
      });
      return;
    }
    this.found = menu(this.player, "Subtitles", "No subtitles", entries, (uri) => this.choose(uri));
  }

  /** Have these words from now on. Where they cannot be had, all stays as it was, and the menu says so. */
  async choose(uri) {
    this.wanted = uri;
    const text = uri ? await wordsAt(this.player.base + uri).catch(() => null) : "";
    if (uri !== this.wanted) return; // another one was chosen meanwhile
    if (text === null) {
      this.found.value = this.chosen;
      this.player.note("These subtitles cannot be had now. Choose them again.");
      return;
    }
    this.chosen = uri;
    this.cues = cuesOf(text);
    this.speak();
  }

  /** Show what is said now. With both eyes on the screen each of them gets the words, or they would lie on the seam. */
  speak() {
    if (!this.cues) return;
    const { player } = this;
    this.layer ??= this.lay();
    const now = player.now + this.ahead;
    const text = this.cues.filter((cue) => cue.start <= now && now < cue.end).map((cue) => cue.text).join("\n");
    this.said = text;
    const { layout } = player.dataset;
    const { video, glass } = player;
    const eye = glass && !glass.canvas.hidden ? glass.canvas : null;
    // Before it begins there is the poster, which shows one eye.
    const both = isStereo(layout) && !eye && player.begun;
    this.layer.style.setProperty("--shape", (eye ? eye.width / eye.height : video.videoWidth / video.videoHeight) || 16 / 9);
    this.layer.dataset.eyes = both ? (layout === "cross-eyed" ? "full-sbs" : layout) : "";
    const [line, second] = this.layer.children;
    second.hidden = !both;
    for (const item of [line, second]) if (item.textContent !== text) item.textContent = text;
  }

  /** A layer that covers the picture and not the bars beside it: the rules keep it in the picture's `--shape`. */
  lay() {
    const layer = document.createElement("div");
    layer.className = "words";
    layer.innerHTML = '<p class="subtitle"></p><p class="subtitle"></p>';
    this.player.screen.append(layer);
    this.player.rest.watch(layer);
    return layer;
  }
}

async function wordsAt(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
  return answer.text();
}

/** Cues of a WebVTT text as our server writes it, by the clock of the film's file. */
export function cuesOf(text) {
  return text.split(/\n\s*\n/).flatMap((block) => {
    const lines = block.split("\n");
    const at = lines.findIndex((line) => line.includes("-->"));
    if (at < 0) return [];
    const [start, end] = lines[at].split("-->").map((part) => secondsOf(part.trim().split(/\s/)[0]));
    return [{ start, end, text: lines.slice(at + 1).join("\n").trim().replace(/<[^>]*>/g, "").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&") }];
  });
}
