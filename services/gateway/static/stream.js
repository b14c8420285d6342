// One event stream for all tabs of a browser: HTTP/1.1 gives a host six connections, and a player needs some of them.
// The tab that holds the lock keeps the stream and tells the others; when it closes, the lock goes to the next one.
const QUIET_MILLISECONDS = 2500;
const ANNOUNCE_MILLISECONDS = 10_000;
const listeners = new Set();
const watchers = new Set();
const channel = "BroadcastChannel" in self ? new BroadcastChannel("stereospot") : null;
let started = false;
let connected = true;
let quiet = 0; // the timer since the connection was lost

/** Call `listener(name, data)` for "job", "deleted", "counts" and "open" (the state may have changed meanwhile: re-read). */
export function subscribe(listener) {
  listeners.add(listener);
  if (!started) {
    started = true;
    start();
  }
  return () => listeners.delete(listener);
}

/** Call `watcher(connected)` when the connection is lost for more than a moment, and when it is back. */
export function onConnection(watcher) {
  watchers.add(watcher);
}

function start() {
  if (channel) channel.onmessage = (message) => receive(message.data);
  if (navigator.locks && channel) {
    navigator.locks.request("stereospot-stream", () => new Promise(() => open()));
  } else {
    open();
  }
}

function tell(item) {
  channel?.postMessage(item);
  receive(item);
}

function receive({ name, data }) {
  if (name === "connection") {
    if (!data) {
      quiet ||= setTimeout(() => show(false), QUIET_MILLISECONDS); // every try that fails says so again
      return;
    }
    clearTimeout(quiet);
    quiet = 0;
    show(true);
    return;
  }
  for (const listener of listeners) listener(name, data);
}

function show(value) {
  if (value === connected) return;
  connected = value;
  for (const watcher of watchers) watcher(connected);
}

function open() {
  const source = new EventSource("/api/v1/events");
  for (const name of ["open", "job", "deleted", "counts"]) {
    source.addEventListener(name, (event) => {
      if (event.data !== undefined) tell({ name, data: JSON.parse(event.data) });
      if (name === "open") tell({ name: "connection", data: true });
    });
  }
  source.onerror = () => {
    tell({ name: "connection", data: false });
    // A proxy's error page ends an EventSource for good; a lost connection it mends by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(open, 1500);
  };
}

/**
 * Say something to people who do not see the page; at most one thing every ten seconds, but for what went wrong. The last
 * of what came too soon is said when they are over.
 */
let said = 0;
let later = 0; // the timer of what came too soon
export function announce(text, wrong = false) {
  const wait = said + ANNOUNCE_MILLISECONDS - Date.now();
  if (!wrong) clearTimeout(later);
  if (!wrong && wait > 0) {
    later = setTimeout(announce, wait, text);
    return;
  }
  said = Date.now();
  document.getElementById("announcements").textContent = text;
}

/** fetch() that throws the server's own words. What it asks for changes without its ETag: progress, tokens. */
export async function ask(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", headers: { Accept: "application/json", ...options.headers }, ...options });
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const problem = await answer.json().catch(() => ({ title: `The server answered ${answer.status}.` }));
  const detail = problem.detail && problem.detail !== problem.title ? ` ${problem.detail}` : "";
  // What the server refuses stays refused; where it stumbled, another try may help.
  throw Object.assign(new Error(`${problem.title}${detail}`), { problem, status: answer.status, final: answer.status < 500 });
}

export const post = (path, body, headers = {}) =>
  ask(path, { method: "POST", body: body && JSON.stringify(body), headers: body ? { "Content-Type": "application/json", Accept: "application/json", ...headers } : headers });

/** 4:10, 1:02:33 */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** A film's length, as its card has it: the nearest second, halves up. */
export const lengthClock = (seconds) => clock(Math.round(seconds));

/** A place in a film of so many seconds: its end reads as its length does. The scrubber stops up to a step before it. */
export const placeClock = (seconds, length) => (length && seconds > length - PLACE_STEP ? lengthClock(length) : clock(seconds));
export const PLACE_STEP = 0.05;

/** The seconds of a time in WebVTT, which clock() would write. */
export const secondsOf = (text) => text.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);

/** 4.2, 23: what is small has a decimal. */
export const figure = (value) => value.toFixed(value < 10 ? 1 : 0);

/** "23.9 fps, 4 min left" */
export function figures(progress) {
  const parts = [];
  if (progress.fps) parts.push(`${figure(progress.fps)} fps`);
  if (progress.eta_seconds !== null && progress.eta_seconds !== undefined) {
    const left = progress.eta_seconds;
    parts.push(left < 90 ? `${Math.max(1, Math.round(left))} s left` : left < 5400 ? `${Math.round(left / 60)} min left` : `${(left / 3600).toFixed(1)} h left`);
  }
  return parts.join(", ");
}
