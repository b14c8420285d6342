// The strip of a film's segments: what each is at, where the film plays, and what happened to the one that is pointed at.
import { ask, clock, figure, placeClock } from "./stream.js";
import { doneOf } from "./segments.js";

const WORDS = { waiting: "waiting", running: "at work", retrying: "trying again", done: "done", failed: "failed" };
const LINGER_MILLISECONDS = 120;
const LEAST_PIXELS = 12; // of a cell, on average; narrower ones are hard to press, and stand in rows of equals instead

/** A segment whose worker died says nothing; the next one that takes it begins with a higher attempt. */
const stateOfCell = (cell) => (cell?.state === "running" && cell.attempt > 1 ? "retrying" : (cell?.state ?? "waiting"));

/** "in 1.4 s, 34 fps" */
const took = (told) => (told?.seconds && told.fps ? `in ${told.seconds.toFixed(1)} s, ${figure(told.fps)} fps` : "");

class Strip extends HTMLElement {
  connectedCallback() {
    this.sized = new ResizeObserver(() => this.arrange());
    this.sized.observe(this);
    this.addEventListener("click", (event) => this.choose(event));
    this.addEventListener("pointerover", (event) => this.tell(event.target));
    this.addEventListener("focusin", (event) => this.tell(event.target));
    this.addEventListener("keydown", (event) => this.move(event));
  }

  disconnectedCallback() { this.sized.disconnect(); }

  /** As long as all cells fit into one row they are as wide as their segments are long, as on the scrubber above. */
  arrange() { this.grid?.classList.toggle("timed", this.grid.children.length * LEAST_PIXELS <= this.clientWidth); }

  clear() {
    this.grid = null;
    this.replaceChildren();
  }

  show(segments, state) {
    if (this.grid?.children.length !== segments.length) this.build(segments);
    const last = segments.at(-1);
    this.length = last.start_seconds + last.duration_seconds;
    const done = doneOf(state);
    const cells = new Map((state?.cells ?? []).map((item) => [item.index, item]));
    segments.forEach((segment, position) => {
      const cell = cells.get(segment.index);
      const name = done(segment.index) ? "done" : stateOfCell(cell);
      const button = this.grid.children[position];
      if (button.className.split(" ")[0] !== name || button.attempt !== cell?.attempt) {
        button.className = name;
        button.classList.toggle("here", position === this.place);
        button.attempt = cell?.attempt;
        button.cell = cell;
        button.setAttribute("aria-label", this.words(segment, name, cell));
      }
    });
  }

  words(segment, name, cell) {
    const span = `${clock(segment.start_seconds)} to ${placeClock(segment.start_seconds + segment.duration_seconds, this.length)}`;
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
      button.style.flexGrow = segment.duration_seconds;
      this.grid.append(button);
    });
    this.grid.style.setProperty("--cell", segments.length > 400 ? "0.5rem" : segments.length < 24 ? "2.2rem" : "0.9rem");
    this.replaceChildren(this.grid);
    this.arrange();
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
    this.place = index;
    this.grid?.querySelector(".here")?.classList.remove("here");
    this.grid?.children[index]?.classList.add("here");
  }
}

customElements.define("ss-strip", Strip);
