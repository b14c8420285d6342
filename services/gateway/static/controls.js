// The bar below the picture: its buttons and sliders, the place in the film, and how much of it is converted.
import { PLACE_STEP, lengthClock, placeClock } from "./stream.js";
import { ICONS } from "./icons.js";
import { doneOf } from "./segments.js";
import { Peek } from "./peek.js";

// Menus come when what they offer is known, and stand in this order all the same.
const MENUS = ["View", "Sound", "Subtitles", "Chapters"];

/** Make the bar, and have the picture itself do what the play button does. */
export function build(player) {
  player.video.controls = false;
  const bar = document.createElement("div");
  bar.className = "controls";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Player");
  bar.innerHTML = `
    <div class="scrub"><canvas width="1200" height="4" aria-hidden="true"></canvas><input type="range" min="0" max="1" step="${PLACE_STEP}" value="0" aria-label="Place in the film"></div>
    <button type="button" data-do="toggle"></button>
    <span class="place"><span data-now>0:00</span> / <span data-length></span></span>
    <button type="button" data-do="mute"></button>
    <input class="loud" type="range" min="0" max="1" step="0.05" value="1" aria-label="Volume">
    <span class="spring"></span>
    <div class="menus"></div>
    <button type="button" data-do="swap" aria-pressed="false" aria-label="Swap eyes" title="Swap eyes">${ICONS.swap}<span class="word">Swap eyes</span></button>
    <button type="button" data-do="keys" class="wide" aria-label="Keys" title="Keys">?</button>
    <button type="button" data-do="headset" title="In the headset: the stick, or the trigger on the left or right third of the screen, goes ten seconds on or back; in its middle it pauses" hidden>Enter VR</button>
    <button type="button" data-do="full" aria-label="Full screen" title="Full screen">${ICONS.full}</button>`;
  player.append(bar);
  player.bar = bar;
  player.scrub = bar.querySelector(".scrub input");
  player.track = bar.querySelector(".scrub canvas");
  player.peek = new Peek(bar.querySelector(".scrub"), player.scrub, () => player.base && `${player.base}storyboard.vtt`);
  player.scrub.addEventListener("change", () => { clearTimeout(player.resting); player.scrubbing = false; player.seekTo(Number(player.scrub.value)); });
  player.scrub.addEventListener("input", () => { player.scrubbing = true; words(player); });
  bar.querySelector(".loud").addEventListener("input", (event) => { player.video.volume = Number(event.target.value); player.video.muted = false; });
  bar.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action) player[action]();
  });
  // Whoever presses the picture means it with the next key, too.
  player.screen.tabIndex = 0;
  player.screen.setAttribute("role", "group");
  player.screen.setAttribute("aria-label", "Picture");
  player.screen.addEventListener("click", () => { player.screen.focus({ preventScroll: true }); player.toggle(); });
  // A menu that was used by pointer is done with; by keyboard it keeps the focus.
  bar.addEventListener("pointerdown", () => { player.pointed = true; });
  bar.addEventListener("keydown", () => { player.pointed = false; });
  bar.addEventListener("change", (event) => { if (player.pointed && event.target.matches("select")) player.screen.focus({ preventScroll: true }); });
  player.screen.addEventListener("dblclick", () => player.full());
}

/** A menu of the bar; `first` is what it says where nothing is chosen, entries are names and values. */
export function menu(player, name, first, entries, choose) {
  const label = document.createElement("label");
  label.className = "menu";
  label.title = name;
  label.innerHTML = ICONS[name];
  const select = label.appendChild(document.createElement("select"));
  select.setAttribute("aria-label", name);
  if (first) select.add(new Option(first, ""));
  for (const [text, value] of entries) select.add(new Option(text, value));
  select.addEventListener("change", () => choose(select.value, select));
  const place = player.bar.querySelector(".menus");
  place.insertBefore(label, [...place.children].find((item) => MENUS.indexOf(item.title) > MENUS.indexOf(name)) ?? null);
  return select;
}

/** A button that says what it would do. */
function say(button, icon, name) {
  if (button.title === name) return;
  button.innerHTML = ICONS[icon];
  button.title = name;
  button.setAttribute("aria-label", name);
}

/** Show where the film is, and whether it plays. */
export function follow(player) {
  const playing = !player.video.paused && !player.video.ended;
  const silent = player.video.muted || player.video.volume === 0;
  say(player.bar.querySelector("[data-do=toggle]"), ...(playing ? ["pause", "Pause"] : ["play", "Play"]));
  say(player.bar.querySelector("[data-do=mute]"), ...(silent ? ["silent", "Sound on"] : ["loud", "Mute"]));
  const length = player.length || player.edge;
  player.scrub.max = length || 1;
  if (!player.scrubbing) player.scrub.value = (player.aim ?? player.left)?.seconds ?? player.now;
  player.bar.querySelector(".loud").value = player.video.muted ? 0 : player.video.volume;
  words(player);
}

function words(player) {
  const length = player.length || player.edge || 0;
  // Its pictures may end a little before the film does.
  const over = player.video.ended && !player.scrubbing && !player.aim;
  const place = placeClock(over ? length : Number(player.scrub.value), length);
  player.bar.querySelector("[data-now]").textContent = place;
  player.bar.querySelector("[data-length]").textContent = lengthClock(length);
  player.scrub.setAttribute("aria-valuetext", place);
}

/** The scrubber's track: what is converted is bright. Neighbours are one stroke, or their seams would show. */
export function paint(player) {
  const { track, segments, length } = player;
  const width = (track.width = Math.round(track.clientWidth * devicePixelRatio) || track.width);
  const context = track.getContext("2d");
  const style = getComputedStyle(player);
  context.fillStyle = style.getPropertyValue("--line");
  context.fillRect(0, 0, width, track.height);
  if (!segments || !length) return;
  const done = doneOf(player.state);
  const at = (index) => (index < segments.length ? Math.round((segments[index].start_seconds / length) * width) : width);
  context.fillStyle = style.getPropertyValue("--soft");
  for (let first = 0; first < segments.length; first += 1) {
    if (!done(segments[first].index)) continue;
    let next = first + 1;
    while (next < segments.length && done(segments[next].index)) next += 1;
    context.fillRect(at(first), 0, Math.max(1, at(next) - at(first)), track.height);
    first = next;
  }
}
