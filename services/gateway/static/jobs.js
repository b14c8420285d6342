// Lists of films that keep themselves true: cards are rendered by the server, numbers in them are moved here.
import { FINISHED, fragment, insist, update } from "./cards.js";
import { announce, ask, post, subscribe } from "./stream.js";

const COUNTED = {
  all: () => true,
  active: (phase) => !FINISHED.has(phase),
  completed: (phase) => phase === "completed",
  failed: (phase) => phase === "failed",
  cancelled: (phase) => phase === "cancelled",
};
const KINDS = { all: () => true, films: (job) => !job.is_sample, samples: (job) => job.is_sample };

class Jobs extends HTMLElement {
  connectedCallback() {
    this.list = this.querySelector("[data-list]");
    this.making = new Map(); // cards on their way, and what was said of them meanwhile
    this.phases = new Set(this.dataset.phases.split(" "));
    this.kind = KINDS[this.dataset.kind] ? this.dataset.kind : "films";
    // Where the page has them: what is over leaves this list for one of these.
    this.over = Object.fromEntries([...document.querySelectorAll("[data-holds]")].map((list) => [list.dataset.holds, list]));
    this.bulk();
    this.release = subscribe((name, data) => this.receive(name, data));
  }

  disconnectedCallback() { this.release?.(); }

  get lists() { return [this.list, ...Object.values(this.over)]; }

  card(id) { return this.lists.map((list) => list.querySelector(`[data-job="${CSS.escape(id)}"]`)).find(Boolean); }

  /** The list that a job belongs to; undefined if none of this page shows it. */
  place(job) {
    if (this.phases.has(job.phase) && KINDS[this.kind](job)) return this.list;
    return job.phase === "completed" && job.is_sample ? undefined : this.over[job.phase];
  }

  receive(name, data) {
    if (name === "job") this.change(data);
    if (name === "deleted") {
      this.making.delete(data.job_id); // a card that is on its way is of what is no more
      this.card(data.job_id)?.remove();
      this.settle();
    }
    if (name === "counts") this.count(data);
    if (name === "open") this.refresh();
  }

  async refresh() {
    // The stream was away, or not yet there when this page was made: what this list shows may have changed.
    const cards = this.lists.flatMap((list) => [...list.children]);
    const listed = (status, list, more = []) => {
      const wanted = new URLSearchParams([["status", status], ["kind", this.kind], ["limit", Math.min(200, list.children.length + 20)], ...more]);
      return ask(`/api/v1/jobs?${wanted}`).catch(() => null);
    };
    // What was searched for, and the page of the list, are in the address.
    const place = [...new URLSearchParams(location.search)].filter(([name]) => name === "q" || name === "cursor");
    const found = await listed(this.dataset.shows, this.list, place);
    if (!found) return;
    const present = new Set(found.jobs.map((job) => job.job_id));
    for (const job of found.jobs.reverse()) if (this.card(job.job_id) || !found.next) this.change(job);
    for (const [status, list] of Object.entries(this.over)) {
      const more = list.children.length && (await listed(status, list));
      for (const job of more?.jobs ?? []) {
        present.add(job.job_id);
        if (this.card(job.job_id)) this.change(job);
      }
    }
    for (const card of cards) {
      if (present.has(card.dataset.job)) continue;
      const job = await ask(`/api/v1/jobs/${card.dataset.job}`).catch(({ status }) => (status === 404 ? null : undefined));
      if (job) this.change(job);
      else if (job === null) card.remove(); // of one that could not be asked for nothing is known
    }
    this.settle();
  }

  async change(job) {
    const card = this.card(job.job_id);
    const place = this.place(job);
    if (card && card.dataset.phase === job.phase && card.parentElement === place && (job.playback.poster === null || card.querySelector("img"))) {
      update(card, job);
      return;
    }
    // One that failed before anybody saw it at work is shown, too.
    const comes = place === this.list ? !("fixed" in this.dataset) : place && job.phase === "failed";
    if (!card && !comes) return;
    if (this.making.has(job.job_id)) {
      this.making.set(job.job_id, job);
      return;
    }
    this.making.set(job.job_id, null);
    const made = await insist(`/jobs/${job.job_id}/card`, () => this.isConnected && this.making.has(job.job_id));
    if (!this.making.has(job.job_id)) return;
    const later = this.making.get(job.job_id);
    this.making.delete(job.job_id);
    if (made) this.put(job, made.firstElementChild);
    if (later) this.change(later);
  }

  /** A card as the server made it, which may know more than the event that led to it, to the list that it belongs to. */
  put(job, fresh) {
    const place = this.place({ ...job, phase: fresh.dataset.phase });
    const present = this.card(job.job_id);
    if (present && present.parentElement === place) present.replaceWith(fresh);
    else {
      present?.remove();
      place?.prepend(fresh);
    }
    if (this.picking && place === this.list) this.pick(fresh);
    if (FINISHED.has(job.phase)) announce(`${job.title}: ${job.stage_label}`);
    this.settle();
  }

  settle() {
    for (const list of Object.values(this.over)) list.closest("section").hidden = !list.children.length;
    const heading = this.querySelector("h2");
    if (heading) heading.hidden = !this.list.children.length;
    const empty = this.querySelector("[data-empty]");
    if (empty && this.list.children.length) empty.remove();
    // What was chosen may have gone from the list.
    this.querySelector("[data-bulk]")?.dispatchEvent(new Event("change"));
  }

  count(phases) {
    for (const place of document.querySelectorAll("[data-count]")) {
      const shows = COUNTED[place.dataset.count];
      place.textContent = Object.entries(phases).reduce((sum, [phase, count]) => sum + (phase !== "deleted" && shows(phase) ? count : 0), 0);
    }
  }

  bulk() {
    const form = this.querySelector("[data-bulk]");
    if (!form) return;
    this.picking = true;
    const bar = form.querySelector("[data-bulk-bar]");
    const all = form.querySelector("[data-bulk-all]");
    const boxes = () => [...form.querySelectorAll(".pick input")];
    const said = form.querySelector("[data-refused]");
    const picked = () => [...form.querySelectorAll(".pick :checked")];
    all.addEventListener("change", () => { for (const box of boxes()) box.checked = all.checked; });
    form.addEventListener("change", () => {
      const count = picked().length;
      const whole = boxes().length;
      all.closest("label").hidden = !whole;
      all.checked = whole > 0 && count === whole;
      all.indeterminate = count > 0 && count < whole;
      bar.hidden = !count;
      form.classList.toggle("picking", count > 0);
      form.querySelector("[data-bulk-count]").textContent = `${count} chosen`;
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const button of form.querySelectorAll("[data-bulk-action]")) {
      button.addEventListener("click", async () => {
        const action = button.dataset.bulkAction;
        const chosen = picked();
        if (action === "delete" && !confirm(`Remove ${chosen.length} film${chosen.length > 1 ? "s" : ""} and everything made for them?`)) return;
        button.disabled = true;
        said.hidden = true;
        const results = await Promise.allSettled(chosen.map((box) => post(`/api/v1/jobs/${box.value}/${action}`)));
        const refused = results.filter((result) => result.status === "rejected");
        for (const box of chosen) box.checked = false;
        form.dispatchEvent(new Event("change"));
        button.disabled = false;
        if (!refused.length) return;
        const { message } = refused[0].reason;
        said.textContent = chosen.length > 1 ? `${refused.length} of ${chosen.length} refused. ${message}` : message;
        said.hidden = false;
      });
    }
    for (const card of this.list.children) this.pick(card);
    form.dispatchEvent(new Event("change"));
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
document.addEventListener("error", ({ target }) => { if (target.matches(".picture img, .screen .poster")) target.remove(); }, true);
for (const picture of document.querySelectorAll(".picture img")) if (picture.complete && !picture.naturalWidth) picture.remove();

class Workers extends HTMLElement {
  connectedCallback() {
    this.timer = setInterval(async () => {
      if (document.hidden) return;
      const page = await fragment("/workers").catch(() => null);
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
    const again = button.dataset.letterAction === "retry";
    button.disabled = true;
    try {
      if (again) await post(`${path}/retry`);
      else await ask(path, { method: "DELETE" });
      announce(again ? "It is tried again" : "Discarded");
      row.remove();
      // What stands there when there are none is the server's to say.
      if (!document.querySelector("[data-letter]")) location.reload();
    } catch (problem) {
      button.disabled = false;
      const said = row.querySelector("[data-refused]");
      said.textContent = problem.message;
      said.hidden = false;
    }
  });
}

customElements.define("ss-jobs", Jobs);
customElements.define("ss-workers", Workers);
