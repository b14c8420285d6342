// One film's page: progress, the strip of its segments, what can be done with it.
import { announce, ask, post, subscribe } from "./stream.js";
import { FINISHED, insist, update } from "./cards.js";
import { copy } from "./copy.js";
import { nameOf } from "./languages.js";
import { doneOf, stateOf } from "./segments.js";

class Job extends HTMLElement {
  connectedCallback() {
    this.id_ = this.dataset.job;
    this.phase = this.dataset.phase;
    this.strip = this.querySelector("ss-strip");
    this.player = this.querySelector("ss-player");
    this.segments = null;
    this.generation = Number(this.player?.dataset.generation);
    this.local();
    this.state = this.dataset.strip ? JSON.parse(this.dataset.strip) : null;
    this.addEventListener("click", (event) => this.act(event));
    this.addEventListener("gone", () => this.refresh());
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
    if (job.generation < this.generation || job.revision < this.revision) return; // it was on its way
    this.revision = job.revision;
    if (job.generation > this.generation) this.renew(job);
    update(this, job);
    if (job.strip) this.state = job.strip;
    const total = job.progress.segments.total;
    if (!this.segments || (total !== null && this.segments.length !== total)) this.loadSegments();
    else this.show();
    this.player?.know(job, this.segments, this.state);
    this.develop();
    if (job.phase !== this.phase) {
      this.phase = this.dataset.phase = job.phase;
      const over = FINISHED.has(job.phase);
      if (!over) this.classList.add("making");
      announce(job.stage_label);
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

  /** The film is planned anew: nothing holds of what was known of its segments. */
  renew(job) {
    this.generation = job.generation;
    this.segments = this.state = this.developed = null;
    this.strip?.clear();
    const section = this.querySelector("[data-strip-section]");
    if (section) section.hidden = true;
    this.about();
  }

  async about() {
    const place = this.querySelector("[data-about]");
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const fresh = place && (await insist(`/jobs/${this.id_}/about`, () => this.isConnected && turn === this.turn));
    if (turn !== this.turn) return; // whoever asked later knows more
    if (fresh) place.replaceChildren(fresh);
    this.local();
  }

  /** The server writes UTC and codes; people here have a clock, which the segments' logs show, and words for languages. */
  local() {
    for (const { dataset, firstChild } of this.querySelectorAll("[data-language]")) firstChild.data = nameOf(dataset.language, dataset.language);
    for (const time of this.querySelectorAll(".history time")) {
      const at = new Date(time.dateTime);
      time.textContent = `${at.toLocaleDateString()} ${at.toLocaleTimeString([], { hour12: false })}`;
    }
  }

  async loadSegments() {
    if (this.loading) return;
    this.loading = true;
    try {
      const { segments, generation } = await ask(`/api/v1/jobs/${this.id_}/segments`);
      if (generation !== this.generation) throw new Error("of another generation");
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

  /** The command to the clipboard; where the browser lets no page write there, to be copied by hand. */
  async copy(button) {
    const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
    const words = button.dataset.copy.replace(" /", () => ` ${location.origin}/`);
    const text = local ? words : `${words} -H "Authorization: Bearer $STEREOSPOT_KEY"`;
    const copied = await copy(text);
    button.textContent = copied ? "Copied" : "Copy as curl";
    const field = this.querySelector("[data-by-hand]");
    field.hidden = copied;
    field.value = text;
    if (!copied) field.select();
    announce(copied ? "Copied" : "The command stands below, chosen: copy it from there");
  }

  async act(event) {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy) {
      this.copy(button);
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
    } finally {
      button.disabled = false; // not every one of them is replaced by what comes of it
    }
  }
}

customElements.define("ss-job", Job);
