// Lists of films that keep themselves true: cards are rendered by the server, numbers in them are moved here.
import { announce, ask, figures, post, subscribe } from "./stream.js";

const FINISHED = new Set(["completed", "failed", "cancelled", "deleted"]);
const SHOWS = {
  all: () => true,
  active: (phase) => !FINISHED.has(phase),
  completed: (phase) => phase === "completed",
  failed: (phase) => phase === "failed",
  cancelled: (phase) => phase === "cancelled",
};
const KINDS = { all: () => true, films: (job) => !job.is_sample, samples: (job) => job.is_sample };

export function update(root, job) {
  const set = (selector, apply) => { for (const found of root.querySelectorAll(selector)) apply(found); };
  set("[data-label]", (label) => { label.textContent = job.stage_label; });
  // A finished film's card says how old it is there, as the server wrote it.
  if (!FINISHED.has(job.phase) || !root.matches(".card")) set("[data-figures]", (place) => { place.textContent = figures(job.progress); });
  set("[data-progress]", (bar) => { bar.value = job.progress.ratio; });
}

export async function fragment(path) {
  const answer = await fetch(path, { headers: { Accept: "text/html" } });
  if (!answer.ok) return null;
  const holder = document.createElement("template");
  holder.innerHTML = await answer.text();
  return holder.content;
}

class Jobs extends HTMLElement {
  connectedCallback() {
    this.list = this.querySelector("[data-list]");
    this.shows = SHOWS[this.dataset.shows] ?? SHOWS.all;
    this.kind = KINDS[this.dataset.kind] ? this.dataset.kind : "films";
    this.bulk();
    this.release = subscribe((name, data) => this.receive(name, data));
  }

  disconnectedCallback() { this.release?.(); }

  card(id) { return this.list.querySelector(`[data-job="${CSS.escape(id)}"]`); }

  receive(name, data) {
    if (name === "job") this.change(data);
    if (name === "deleted") { this.card(data.job_id)?.remove(); this.settle(); }
    if (name === "counts") this.count(data);
    if (name === "open") this.refresh();
  }

  async refresh() {
    // The stream was away, or not yet there when this page was made: what this list shows may have changed.
    const cards = [...this.list.children];
    const found = await ask(`/api/v1/jobs?status=${SHOWS[this.dataset.shows] ? this.dataset.shows : "all"}&kind=${this.kind}&limit=${Math.min(200, cards.length + 20)}`).catch(() => null);
    if (!found) return;
    const present = new Set(found.jobs.map((job) => job.job_id));
    for (const job of found.jobs.reverse()) if (this.card(job.job_id) || !found.next) this.change(job);
    for (const card of cards) {
      if (present.has(card.dataset.job)) continue;
      const job = await ask(`/api/v1/jobs/${card.dataset.job}`).catch(() => null);
      if (job) this.change(job);
      else card.remove();
    }
    this.settle();
  }

  async change(job) {
    const card = this.card(job.job_id);
    const wanted = this.shows(job.phase) && KINDS[this.kind](job);
    if (card && card.dataset.phase === job.phase && (job.playback.poster === null || card.querySelector("img"))) {
      update(card, job);
      return;
    }
    if (!card && (!wanted || "fixed" in this.dataset || this.making?.has(job.job_id))) return;
    (this.making ??= new Set()).add(job.job_id);
    const made = await fragment(`/jobs/${job.job_id}/card`);
    this.making.delete(job.job_id);
    if (!made) return;
    const fresh = made.firstElementChild;
    const present = this.card(job.job_id);
    // One that failed stays to say why, until the page is left.
    if (!wanted && job.phase !== "failed") {
      present?.remove();
      if (job.phase === "completed" && !job.is_sample) this.ready(fresh);
    } else {
      if (present) present.replaceWith(fresh);
      else this.list.prepend(fresh);
      if (this.picking) this.pick(fresh);
    }
    if (FINISHED.has(job.phase)) announce(`${job.title}: ${job.stage_label}`);
    this.settle();
  }

  /** A finished film goes on to the list of those that can be watched, where the page has one. */
  ready(card) {
    const list = document.querySelector("[data-ready]");
    if (!list) return;
    list.querySelector(`[data-job="${CSS.escape(card.dataset.job)}"]`)?.remove();
    list.prepend(card);
    list.closest("section").hidden = false;
  }

  settle() {
    const heading = this.querySelector("h2");
    if (heading) heading.hidden = !this.list.children.length;
    const empty = this.querySelector("[data-empty]");
    if (empty && this.list.children.length) empty.remove();
    // What was chosen may have gone from the list.
    this.querySelector("[data-bulk]")?.dispatchEvent(new Event("change"));
  }

  count(phases) {
    for (const place of document.querySelectorAll("[data-count]")) {
      const shows = SHOWS[place.dataset.count];
      place.textContent = Object.entries(phases).reduce((sum, [phase, count]) => sum + (phase !== "deleted" && shows(phase) ? count : 0), 0);
    }
  }

  bulk() {
    const form = this.querySelector("[data-bulk]");
    if (!form) return;
    this.picking = true;
    const bar = form.querySelector("[data-bulk-bar]");
    const said = form.querySelector("[data-refused]");
    const picked = () => [...form.querySelectorAll(".pick :checked")];
    form.addEventListener("change", () => {
      const count = picked().length;
      bar.hidden = !count;
      form.classList.toggle("picking", count > 0);
      form.querySelector("[data-bulk-count]").textContent = `${count} chosen`;
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const button of form.querySelectorAll("[data-bulk-action]")) {
      button.addEventListener("click", async () => {
        const action = button.dataset.bulkAction;
        const boxes = picked();
        if (action === "delete" && !confirm(`Remove ${boxes.length} films and everything made for them?`)) return;
        button.disabled = true;
        said.hidden = true;
        const results = await Promise.allSettled(boxes.map((box) => post(`/api/v1/jobs/${box.value}/${action}`)));
        const refused = results.filter((result) => result.status === "rejected");
        for (const box of boxes) box.checked = false;
        form.dispatchEvent(new Event("change"));
        button.disabled = false;
        if (!refused.length) return;
        const { message } = refused[0].reason;
        said.textContent = boxes.length > 1 ? `${refused.length} of ${boxes.length} refused. ${message}` : message;
        said.hidden = false;
      });
    }
    for (const card of this.list.children) this.pick(card);
  }

  pick(card) {
    const label = document.createElement("label");
    label.className = "pick";
    const box = document.createElement("input");
    box.type = "checkbox";
    box.value = card.dataset.job;
    box.setAttribute("aria-label", `Choose ${card.querySelector("h3").textContent.trim()}`);
    label.append(box);
    card.append(label);
  }
}

/** A picture that cannot be had gives way to the rings; the next word about its film asks for it again. */
document.addEventListener("error", ({ target }) => { if (target.matches(".picture img")) target.remove(); }, true);
for (const picture of document.querySelectorAll(".picture img")) if (picture.complete && !picture.naturalWidth) picture.remove();

class Workers extends HTMLElement {
  connectedCallback() {
    this.timer = setInterval(async () => {
      if (document.hidden) return;
      const page = await fragment("/workers");
      const fresh = page?.querySelector("ss-workers");
      if (fresh && fresh.innerHTML !== this.innerHTML) this.innerHTML = fresh.innerHTML;
    }, 3000);
  }

  disconnectedCallback() { clearInterval(this.timer); }
}

for (const button of document.querySelectorAll("[data-letter-action]")) {
  button.addEventListener("click", async () => {
    const row = button.closest("[data-letter]");
    const path = `/api/v1/dead-letters/${row.dataset.letter}`;
    button.disabled = true;
    try {
      if (button.dataset.letterAction === "retry") await post(`${path}/retry`);
      else await ask(path, { method: "DELETE" });
      row.remove();
      announce("Done");
    } catch (problem) {
      button.disabled = false;
      row.querySelector(".fine").textContent = problem.message;
    }
  });
}

customElements.define("ss-jobs", Jobs);
customElements.define("ss-workers", Workers);
