// Try before you convert: three places of a film with two settings, one picture above the other, parted by a slider.
import { announce, ask, clock, post, subscribe } from "./stream.js";
import { doneOf } from "./segments.js";
import { describe } from "./fields.js";
import { Glass } from "./glass.js";

const FINISHED = ["failed", "cancelled"];

class Try extends HTMLElement {
  connectedCallback() {
    this.stage = this.querySelector("[data-stage]");
    this.curtain = this.querySelector("[data-curtain]");
    this.poster = this.querySelector("[data-poster]");
    this.split = this.querySelector("[data-split]");
    this.pair = this.querySelector("[data-pair]");
    this.look = this.querySelector("[data-look]");
    this.base = JSON.parse(this.dataset.options);
    // Samples are made for looking; how the whole film is to be comes along in the address.
    const asked = new URLSearchParams(location.search);
    this.whole = {
      layout: asked.get("layout") ?? (this.base.samples ? "half-sbs" : this.base.layout),
      crf: Number(asked.get("crf") ?? (this.base.samples ? 20 : this.base.crf)),
      codec: asked.get("codec") ?? (this.base.samples ? null : this.base.codec),
      container: asked.get("container") ?? (this.base.samples ? "mp4" : this.base.container),
    };
    this.place = 0;
    this.sets = {}; // "a", "b", "depth": { id, base, done, films }
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (calm) this.look.querySelector("[value=wiggle]").remove();
    this.forms = Object.fromEntries([...this.querySelectorAll("[data-setting]")].map((form) => [form.dataset.setting, form]));
    for (const [name, form] of Object.entries(this.forms)) this.fill(name, form);
    this.pair.addEventListener("change", () => this.show());
    this.look.addEventListener("change", () => this.show());
    this.split.querySelector("input").addEventListener("input", () => this.part());
    this.addEventListener("click", (event) => this.press(event));
    this.below = this.pane();
    this.above = this.pane();
    this.above.canvas.classList.add("above");
    this.part();
    this.release = subscribe((name, data) => {
      if (name === "job") for (const set of Object.values(this.sets)) if (set.id === data.job_id) this.learn(set, data);
      if (name === "open") this.refresh();
    });
    this.resume();
  }

  disconnectedCallback() {
    this.release?.();
    for (const pane of [this.below, this.above]) pane.glass?.show(null);
  }

  /** A canvas over the stage with a silent looping video behind it. */
  pane() {
    const video = document.createElement("video");
    Object.assign(video, { muted: true, loop: true, playsInline: true });
    const canvas = document.createElement("canvas");
    canvas.className = "glass";
    canvas.hidden = true;
    this.stage.prepend(canvas);
    this.stage.append(this.split);
    return { video, canvas, glass: null, address: "" };
  }

  fill(name, form) {
    const shift = name === "b" ? 1.6 : 1;
    form.divergence.value = (this.base.divergence ?? 1.6) * shift;
    form.convergence.value = this.base.convergence;
    form.untouched = this.base.divergence === null && name === "a";
    describe(form);
    form.addEventListener("input", () => { form.untouched = false; form.querySelector("[data-note]").textContent = ""; });
    form.addEventListener("submit", (event) => { event.preventDefault(); this.make(name); });
  }

  options(name) {
    const form = this.forms[name];
    const chosen = { ...this.base, convergence: Number(form.convergence.value), samples: null };
    chosen.divergence = form.untouched ? null : Number(form.divergence.value);
    return chosen;
  }

  /** Samples that this address names already: the job itself if it is one, and those that were made here. */
  async resume() {
    const known = new URLSearchParams(location.search);
    const own = this.base.samples ? (this.base.layout === "2d-depth" ? "depth" : "a") : null;
    const ids = { a: known.get("a"), b: known.get("b"), depth: known.get("depth") };
    if (own) ids[own] ??= this.dataset.job;
    for (const [name, id] of Object.entries(ids)) {
      const job = id && (await ask(`/api/v1/jobs/${encodeURIComponent(id)}`).catch(() => null));
      if (job) this.take(name, job);
    }
    if (this.sets.a && !this.sets.depth) this.depth();
  }

  async refresh() {
    for (const set of Object.values(this.sets)) {
      const job = await ask(`/api/v1/jobs/${set.id}`).catch(() => null);
      if (job) this.learn(set, job);
    }
  }

  async make(name) {
    const button = this.forms[name].querySelector("[type=submit]");
    button.disabled = true;
    try {
      this.take(name, await post("/api/v1/samples", { job_id: this.dataset.job, options: this.options(name) }));
      this.pair.value = name === "b" ? "ab" : this.pair.value;
      if (!this.sets.depth) await this.depth();
    } catch (problem) {
      this.forms[name].querySelector("[data-note]").textContent = problem.message;
    }
    button.disabled = false;
  }

  async depth() {
    const job = await post("/api/v1/samples", { job_id: this.dataset.job, options: this.options("a"), kind: "depth" }).catch(() => null);
    if (job) this.take("depth", job);
  }

  take(name, job) {
    this.drop(this.sets[name]);
    const set = (this.sets[name] = { name, id: job.job_id, done: () => false, films: {}, phase: job.phase });
    const address = new URL(location);
    for (const [key, { id }] of Object.entries(this.sets)) address.searchParams.set(key, id);
    history.replaceState(null, "", address);
    this.starts = [...job.options.samples].sort((one, other) => one - other);
    if (this.forms[name]) {
      const { divergence, convergence } = job.options;
      this.forms[name].untouched = divergence === null;
      if (divergence !== null) this.forms[name].divergence.value = divergence;
      this.forms[name].convergence.value = convergence;
      describe(this.forms[name]);
      const whole = this.forms[name].querySelector("[data-whole]");
      whole.disabled = false;
      // What comes next is the one to press: now it is the film.
      whole.classList.toggle("primary", name === "a");
      this.forms[name].querySelector("[type=submit]").classList.remove("primary");
    }
    if (name === "b") this.pair.querySelector("[value=ab]").disabled = false;
    this.querySelector("[data-bar]").hidden = false;
    this.marks();
    this.learn(set, job);
    this.refresh();
  }

  /** Let go of the films that were fetched. */
  drop(set) {
    for (const url of Object.values(set?.films ?? {})) URL.revokeObjectURL(url);
    if (set) Object.assign(set, { films: {}, done: () => false });
  }

  learn(set, job) {
    set.phase = job.phase;
    set.error = job.error;
    set.total = job.progress.segments.total ?? set.total;
    const base = job.playback.hls?.replace("master.m3u8", "sample/") ?? set.base;
    if (base !== set.base) this.drop(set); // made anew, since its plan did not fit: what is here is of the old one
    set.base = base;
    if (job.strip) set.done = doneOf(job.strip);
    else if (job.phase === "completed") set.done = () => true;
    else if (job.playback.ready && !job.strip) this.ask(set);
    this.tell();
    this.show();
  }

  async ask(set) {
    const { segments } = await ask(`/api/v1/jobs/${set.id}/segments`).catch(() => ({ segments: [] }));
    const ready = new Set(segments.filter((item) => item.state === "done").map((item) => item.index));
    set.done = (index) => ready.has(index);
    this.show();
  }

  /** What is going on, in one line. */
  tell() {
    const sets = Object.values(this.sets);
    const bad = sets.find((set) => FINISHED.includes(set.phase));
    const ready = sets.filter((set) => set.phase === "completed" || set.phase === "assembling").length;
    const text = bad ? (bad.error?.reason ?? "Cancelled") : ready === sets.length ? "Ready" : "Converting the samples";
    const place = this.querySelector("[data-said]");
    if (place.textContent === text) return;
    place.textContent = text;
    announce(text);
  }

  marks() {
    const places = this.querySelector("[data-places]");
    if (places.children.length === this.starts.length) return;
    places.replaceChildren(...this.starts.map((start, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.place = index;
      button.textContent = clock(start);
      button.setAttribute("aria-pressed", index === this.place);
      button.setAttribute("aria-label", `The place at ${clock(start)}`);
      return button;
    }));
  }

  press(event) {
    const place = event.target.closest("[data-place]");
    const whole = event.target.closest("[data-whole]");
    if (place) {
      this.place = Number(place.dataset.place);
      for (const button of this.querySelectorAll("[data-place]")) button.setAttribute("aria-pressed", Number(button.dataset.place) === this.place);
      this.show();
    }
    if (whole) this.convert(whole);
  }

  async convert(button) {
    button.disabled = true;
    try {
      const options = { ...this.options(button.dataset.whole), ...this.whole };
      const job = await post(`/api/v1/jobs/${this.dataset.job}/whole`, { options });
      location.assign(`/jobs/${job.job_id}`);
    } catch (problem) {
      button.disabled = false;
      this.forms[button.dataset.whole].querySelector("[data-note]").textContent = problem.message;
    }
  }

  // ---- the picture ----
  part() {
    const value = Number(this.split.querySelector("input").value) / 10;
    this.stage.style.setProperty("--part", `${value}%`);
    this.split.querySelector("input").setAttribute("aria-valuetext", `${Math.round(value)} % from the left`);
  }

  async show() {
    const pair = this.pair.value;
    const [below, above] = { depth: ["depth", "depth"], a: ["a", null], ab: ["a", "b"] }[pair];
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const films = await Promise.all([this.film(below), above && above !== below ? this.film(above) : null]);
    if (turn !== this.turn) return;
    this.look.disabled = pair === "depth";
    if (this.poster) this.poster.hidden = Boolean(films[0]);
    if (!films[0]) {
      this.curtain.hidden = false;
      this.curtain.textContent = this.sets[below] ? "This place is being converted" : "Three places of the film, two seconds each, before all of it.";
      this.split.hidden = this.below.canvas.hidden = this.above.canvas.hidden = true;
      return;
    }
    this.curtain.hidden = true;
    const layout = pair === "depth" ? "2d-depth" : "full-sbs";
    this.lay(this.below, films[0], layout, pair === "depth" ? "left" : this.look.value, null);
    const second = pair === "depth" ? films[0] : films[1];
    this.split.hidden = this.above.canvas.hidden = !second;
    if (second) this.lay(this.above, second, layout, pair === "depth" ? "right" : this.look.value, pair === "depth" ? this.below.video : null);
    else this.above.glass?.show(null);
    this.stage.dataset.pair = second ? pair : "";
  }

  /** Put a film on a pane; `shared` is a video that shows it already. */
  lay(pane, film, layout, mode, shared) {
    const video = shared ?? pane.video;
    pane.canvas.hidden = false;
    pane.glass ??= new Glass(video, pane.canvas, layout);
    Object.assign(pane.glass, { video, layout, swap: layout === "full-sbs" && Boolean(this.base.swap_eyes) });
    if (!shared && pane.address !== film) {
      pane.address = video.src = film;
      video.play().catch(() => {});
    }
    if (pane === this.above && !shared) {
      // The two loop together: the upper one follows the lower.
      video.ontimeupdate = () => { if (Math.abs(video.currentTime - this.below.video.currentTime) > 0.08) video.currentTime = this.below.video.currentTime; };
    }
    pane.glass.show(mode);
  }

  /** A local address of the chosen place of a set, or null while it is not there. */
  async film(name) {
    const set = this.sets[name];
    const index = Math.min(this.place, (set?.total ?? 1e9) - 1);
    if (!set?.base || !set.done(index)) return null;
    const { films } = set; // others when it is made anew meanwhile
    if (!films[index]) {
      const answer = await fetch(`${set.base}${index}.mp4`).catch(() => null);
      if (!answer?.ok || films !== set.films) return null;
      films[index] = URL.createObjectURL(await answer.blob());
    }
    return films[index];
  }
}

customElements.define("ss-try", Try);
