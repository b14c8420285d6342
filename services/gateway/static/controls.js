// The bar below the picture: its buttons and sliders, the place in the film, and how much of it is converted.
import { clock } from "./stream.js";
import { doneOf } from "./segments.js";
import { Peek } from "./peek.js";

const ICONS = {
  play: '<svg viewBox="0 0 20 20"><path d="M5 3v14l12-7z"/></svg>',
  pause: '<svg viewBox="0 0 20 20"><path d="M5 3h3.5v14H5zM11.5 3H15v14h-3.5z"/></svg>',
  full: '<svg viewBox="0 0 20 20"><path d="M3 3h5v2H5v3H3zm9 0h5v5h-2V5h-3zM3 12h2v3h3v2H3zm12 0h2v5h-5v-2h3z"/></svg>',
};

/** Make the bar, and have the picture itself do what the play button does. */
export function build(player) {
  player.video.controls = false;
  const bar = document.createElement("div");
  bar.className = "controls";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Player");
  bar.innerHTML = `
    <div class="scrub"><canvas width="1200" height="4" aria-hidden="true"></canvas><input type="range" min="0" max="1" step="0.05" value="0" aria-label="Place in the film"></div>
    <button type="button" data-do="toggle" aria-label="Play">${ICONS.play}</button>
    <span class="place"><span data-now>0:00</span> / <span data-length></span></span>
    <input class="loud" type="range" min="0" max="1" step="0.05" value="1" aria-label="Volume">
    <span class="spring"></span>
    <label><span class="visually-hidden">View</span><select data-view></select></label>
    <button type="button" data-do="swap" aria-pressed="false">Swap<span class="word"> eyes</span></button>
    <button type="button" data-do="keys" class="wide" aria-label="Keys">?</button>
    <button type="button" data-do="headset" title="In the headset: the stick, or the trigger on the left or right third of the screen, goes ten seconds on or back; in its middle it pauses" hidden>Enter VR</button>
    <button type="button" data-do="full" aria-label="Full screen">${ICONS.full}</button>`;
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
  player.screen.addEventListener("dblclick", () => player.full());
}

/** Show where the film is, and whether it plays. */
export function follow(player) {
  const playing = !player.video.paused && !player.video.ended;
  const toggle = player.bar.querySelector("[data-do=toggle]");
  if (toggle.dataset.playing !== String(playing)) {
    toggle.dataset.playing = playing;
    toggle.innerHTML = playing ? ICONS.pause : ICONS.play;
    toggle.setAttribute("aria-label", playing ? "Pause" : "Play");
  }
  const length = player.length || player.edge;
  player.scrub.max = length || 1;
  if (!player.scrubbing) player.scrub.value = player.aim?.seconds ?? player.now;
  player.bar.querySelector(".loud").value = player.video.muted ? 0 : player.video.volume;
  words(player);
}

function words(player) {
  const place = clock(Number(player.scrub.value));
  player.bar.querySelector("[data-now]").textContent = place;
  player.bar.querySelector("[data-length]").textContent = clock(player.length || player.edge || 0);
  player.scrub.setAttribute("aria-valuetext", place);
}

/** The scrubber's track: what is converted is bright. */
export function paint(player) {
  const context = player.track.getContext("2d");
  const style = getComputedStyle(player);
  const { width, height } = player.track;
  context.fillStyle = style.getPropertyValue("--line");
  context.fillRect(0, 0, width, height);
  if (!player.segments || !player.length) return;
  const done = doneOf(player.state);
  context.fillStyle = style.getPropertyValue("--soft");
  for (const item of player.segments) {
    if (done(item.index)) context.fillRect((item.start_seconds / player.length) * width, 0, Math.ceil((item.duration_seconds / player.length) * width), height);
  }
}
