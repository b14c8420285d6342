// What lies at a place of the scrubber: a small picture and its time, from the storyboard that the server draws.
import { placeClock, secondsOf } from "./stream.js";

export class Peek {
  /** Over `scrub`, which holds the range `input`; `address()` gives the storyboard's, or null while there is none. */
  constructor(scrub, input, address) {
    this.address = address;
    this.scrub = scrub;
    this.input = input;
    this.box = document.createElement("div");
    this.box.className = "peek";
    this.box.hidden = true;
    this.box.setAttribute("aria-hidden", "true");
    this.picture = this.box.appendChild(document.createElement("div"));
    this.time = this.box.appendChild(document.createElement("span"));
    scrub.append(this.box);
    scrub.addEventListener("pointermove", (event) => this.at(event.clientX));
    scrub.addEventListener("pointerleave", () => { this.box.hidden = true; });
    input.addEventListener("input", () => this.show(Number(input.value)));
    // A finger that was lifted, a key that was pressed: it stays for a moment.
    input.addEventListener("change", () => {
      clearTimeout(this.timer);
      if (!input.matches(":hover")) this.timer = setTimeout(() => { this.box.hidden = true; }, 1200);
    });
    input.addEventListener("blur", () => { this.box.hidden = true; });
  }

  forget() { this.asked = this.cues = null; }

  at(x) {
    const { left, width } = this.scrub.getBoundingClientRect();
    this.show(Math.min(1, Math.max(0, (x - left) / width)) * Number(this.input.max));
  }

  async show(seconds) {
    if (Number(this.input.max) <= 1 && !this.cues) return;
    clearTimeout(this.timer);
    this.box.hidden = false;
    this.time.textContent = placeClock(seconds, Number(this.input.max));
    this.box.style.left = `clamp(6.5rem, ${(100 * seconds) / Number(this.input.max)}%, calc(100% - 6.5rem))`;
    const cue = (await this.load())?.findLast((item) => item.start <= seconds);
    this.picture.hidden = !cue;
    if (!cue) return;
    this.picture.style.cssText = `width: ${cue.width}px; height: ${cue.height}px; background: url("${cue.sheet}") -${cue.left}px -${cue.top}px`;
  }

  /** The cues; asked for once, and again after a while where the film is not planned yet. */
  load() {
    const address = this.address();
    if (!address || (this.asked && performance.now() < this.again)) return this.asked ?? null;
    this.again = Infinity;
    this.asked = fetch(address).then(async (answer) => {
      if (!answer.ok) { this.again = performance.now() + 5000; return null; }
      return (this.cues = tilesOf(await answer.text(), answer.url));
    }, () => { this.again = performance.now() + 5000; return null; });
    return this.asked;
  }
}

/** Tiles of a storyboard's WebVTT: {start, sheet, left, top, width, height}. */
export function tilesOf(text, base) {
  return [...text.matchAll(/^([\d:.]+) --> .*\n(\S+)#xywh=(\d+),(\d+),(\d+),(\d+)$/gm)].map(([, start, sheet, ...box]) => {
    const [left, top, width, height] = box.map(Number);
    return { start: secondsOf(start), sheet: new URL(sheet, base).href, left, top, width, height };
  });
}
