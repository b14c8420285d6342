// What lists and pages of films share: words and numbers that follow the events, and pieces of pages from the server.
import { figures } from "./stream.js";

const AGAIN_MILLISECONDS = 2000;

export const FINISHED = new Set(["completed", "failed", "cancelled", "deleted"]);

/** Move the words and numbers of a card, or of a page, that change while a film is made. */
export function update(root, job) {
  const set = (selector, apply) => { for (const found of root.querySelectorAll(selector)) apply(found); };
  set("[data-label]", (label) => { label.textContent = job.stage_label; });
  // A finished film's card says how old it is there, as the server wrote it.
  if (!FINISHED.has(job.phase) || !root.matches(".card")) set("[data-figures]", (place) => { place.textContent = figures(job.progress); });
  set("[data-progress]", (bar) => { bar.value = job.progress.ratio; });
}

/** A piece of a page as the server renders it; null where it is refused. Throws where the server stumbles, or is away. */
export async function fragment(path) {
  const answer = await fetch(path, { headers: { Accept: "text/html" } });
  if (answer.status >= 500) throw new Error(`The server answered ${answer.status}.`);
  if (!answer.ok) return null;
  const holder = document.createElement("template");
  holder.innerHTML = await answer.text();
  return holder.content;
}

/** The same, asked for until there is an answer: of what has ended no other event comes. null once it is not `wanted`. */
export async function insist(path, wanted) {
  while (wanted()) {
    try {
      return await fragment(path);
    } catch {
      await new Promise((resolve) => { setTimeout(resolve, AGAIN_MILLISECONDS); });
    }
  }
  return null;
}
