// What lists and pages of films share: words and numbers that follow the events, and pieces of pages from the server.
import { figures } from "./stream.js";

export const FINISHED = new Set(["completed", "failed", "cancelled", "deleted"]);

/** Move the words and numbers of a card, or of a page, that change while a film is made. */
export function update(root, job) {
  const set = (selector, apply) => { for (const found of root.querySelectorAll(selector)) apply(found); };
  set("[data-label]", (label) => { label.textContent = job.stage_label; });
  // A finished film's card says how old it is there, as the server wrote it.
  if (!FINISHED.has(job.phase) || !root.matches(".card")) set("[data-figures]", (place) => { place.textContent = figures(job.progress); });
  set("[data-progress]", (bar) => { bar.value = job.progress.ratio; });
}

/** A piece of a page as the server renders it; null where it is refused. */
export async function fragment(path) {
  const answer = await fetch(path, { headers: { Accept: "text/html" } });
  if (!answer.ok) return null;
  const holder = document.createElement("template");
  holder.innerHTML = await answer.text();
  return holder.content;
}
