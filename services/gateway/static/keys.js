// The player's keys: what they do, and the line that says so.
import { announce } from "./stream.js";

const KEYS = "Space: play · ← →: 5 seconds · 0 to 9: tenths of the film · V: view · S: swap eyes · M: sound · F: full screen";
const STEPS = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -60, PageUp: 60, Home: -1e9, End: 1e9 };

/** Which keys there are; the same key hides them again, and so does Escape, wherever the focus is. */
export function help(player) {
  if (!player.help) {
    player.help = document.createElement("p");
    player.help.className = "keys";
    player.help.hidden = true;
    player.help.textContent = KEYS;
    player.bar.append(player.help);
  }
  player.help.hidden = !player.help.hidden;
  if (!player.help.hidden) announce(KEYS);
}

/** Do what a key stands for; the browser's own keys, and those of a slider, are left alone. */
export function press(player, event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape" && player.help?.hidden === false) help(player);
  if (!player.ears.contains(event.target) || event.target.matches("select")) return;
  if (event.target.matches("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key)) {
    const step = event.target === player.scrub && STEPS[event.key];
    if (step) { event.preventDefault(); player.step(step); }
    return;
  }
  const { view } = player;
  const actions = {
    " ": () => player.toggle(), k: () => player.toggle(), f: () => player.full(), m: () => player.mute(),
    ArrowLeft: () => player.step(-5), ArrowRight: () => player.step(5),
    s: () => player.glass && player.swap(),
    "?": () => player.keys(),
    v: () => { if (view) { view.selectedIndex = (view.selectedIndex + 1) % view.options.length; player.look(view.value); } },
  };
  if (event.key === " " && event.target.matches("button")) return;
  const act = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key] ?? (/^\d$/.test(event.key) && player.length ? () => player.seekTo((player.length * Number(event.key)) / 10) : null);
  if (act) { event.preventDefault(); act(); }
}
