// One file on its way up, by tus 1.0 (tus.io): it can stop, go on, and go on after a reload, when the same file is
// chosen again. A server that does not speak tus gets the file in one piece.
const PREFIX = "stereospot-upload:";
const SLICE = 64 << 20; // proxies limit bodies; a slice that came half is kept by the server
// One with a checksum is kept whole or not at all: a second's worth, and no more than the server holds in memory.
const CHECKED_SLICES = [1 << 20, 8 << 20];
const CHECKED_SECONDS = 1;
const DIGESTS = { sha256: "SHA-256", sha1: "SHA-1" };
const DAMAGED = 460;
const UNKNOWN = [404, 405, 501]; // how a server answers that does not know what it is asked for
const GONE = [404, 410];
const LOCKED = [401, 403]; // says something of who asks, and nothing of the file
const IN_A_ROW = 5; // times that bytes are damaged, or cannot be read; then it is no accident
const NAME_LETTERS = 200;
const ANSWER_MILLISECONDS = 500; // of another tab
const PAUSES = [500, 1000, 2000, 4000, 8000, 15_000];
const HEADERS = { "Tus-Resumable": "1.0.0" };

const fingerprint = (file) => `${PREFIX}${file.name}:${file.size}:${file.lastModified}`;

export function kept(key) {
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}

function keep(key, value) {
  try {
    if (value) localStorage.setItem(key, JSON.stringify(value));
    else localStorage.removeItem(key);
  } catch { /* storage may be denied or full; then nothing is resumed */ }
}

/** The tabs of a browser share what is kept, so they tell each other what they send. Locks would take a secure context. */
const channel = "BroadcastChannel" in self ? new BroadcastChannel("stereospot-uploads") : null;
const sending = new Set(); // keys of what this tab sends
channel?.addEventListener("message", ({ data }) => { if (sending.has(data.asked)) channel.postMessage({ sent: data.asked }); });

function isSentElsewhere(key) {
  if (!channel) return Promise.resolve(false);
  return new Promise((resolve) => {
    const end = (answer) => { channel.removeEventListener("message", hear); resolve(answer); };
    const hear = ({ data }) => { if (data.sent === key) end(true); };
    channel.addEventListener("message", hear);
    setTimeout(end, ANSWER_MILLISECONDS, false);
    channel.postMessage({ asked: key });
  });
}

/** What a file is called, no longer than the server takes. Half a letter would be none. */
export const nameOf = (file) => [...file.name].slice(0, NAME_LETTERS).join("");

/** Uploads that a reload or a crash left unfinished: [{key, name, size, location, offset}]. */
export async function unfinished() {
  let keys = [];
  try { keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)); } catch { /* denied: nothing was kept */ }
  const found = await Promise.all(keys.map(async (key) => {
    if (await isSentElsewhere(key)) return null;
    const entry = kept(key);
    const offset = entry && (await stateOf(entry.location).catch(() => undefined));
    if (offset === undefined) return null; // it could not be asked: it may be there all the same
    if (offset === null || offset === entry.size) { if (offset === null) keep(key, null); return null; }
    return { key, ...entry, offset };
  }));
  return found.filter(Boolean);
}

/** Give an unfinished upload up, here and on the server; not one that another tab has gone on with. */
export async function abandon(item) {
  if (!(await isSentElsewhere(item.key)) && !sending.has(item.key)) await discard(item);
}

export async function discard({ key, location }) {
  keep(key, null);
  await fetch(location, { method: "DELETE", headers: HEADERS }).catch(() => {});
}

/** How much of an upload the server has; null if it does not know it (any more). Throws when it cannot be asked. */
async function offsetOf(location) {
  const answer = await fetch(location, { method: "HEAD", headers: HEADERS });
  const offset = answer.headers.get("Upload-Offset");
  if (answer.ok && offset !== null) return Number(offset);
  // What a proxy does not find may be there all the same.
  if (GONE.includes(answer.status) && answer.headers.has("Tus-Resumable")) return null;
  throw await refusal(answer);
}

/** The same from aside: HEAD would take the turn of whoever is sending, and end what is on its way. */
async function stateOf(location) {
  const answer = await fetch(location, { headers: { Accept: "application/json" }, cache: "no-store" });
  if (answer.ok) return (await answer.json()).offset;
  const problem = await refusal(answer);
  if (GONE.includes(answer.status) && problem.refused) return null;
  throw problem;
}

/** A digest that the server checks and this browser makes: none on a plain address in the network, which is not secure. */
async function digestOf() {
  if (!self.crypto?.subtle) return null;
  const answer = await fetch("/api/v1/uploads", { method: "OPTIONS", headers: HEADERS }).catch(() => null);
  const offered = answer?.headers.get("Tus-Checksum-Algorithm")?.split(",") ?? [];
  return Object.keys(DIGESTS).find((name) => offered.includes(name)) ?? null;
}

export class Upload {
  /** `progress(sent, begunAt)` is called while bytes go; `waiting(seconds, problem)` before another try. */
  constructor(file, { progress = () => {}, waiting = () => {} } = {}) {
    Object.assign(this, { file, progress, waiting, paused: false, over: false, requests: new Set(), wakers: new Set() });
    this.key = fingerprint(file);
  }

  /** Send what is missing; the upload's id for `POST /jobs`. Rejects with the server's words, or when stopped. */
  async run() {
    if (kept(this.key) && (await isSentElsewhere(this.key))) throw new Error("Another tab is sending this file.");
    await this.unpaused();
    sending.add(this.key);
    try {
      return await this.send();
    } finally {
      sending.delete(this.key);
    }
  }

  async send() {
    const known = kept(this.key);
    this.location = known?.location ?? null;
    let offset = this.location ? await this.patiently(() => offsetOf(this.location)) : null;
    this.resumed = offset !== null && offset > 0;
    if (offset === null) {
      if (!(await this.create())) return this.whole();
      offset = 0;
    }
    this.digest = await digestOf();
    while (offset < this.file.size) {
      await this.unpaused();
      offset = await this.patiently(async () => {
        if (this.stale) {
          const now = await offsetOf(this.location);
          if (now === null) throw Object.assign(new Error("The server has dropped this upload. Choose the file again."), { final: true, refused: true });
          offset = now;
          if (offset === this.file.size) return offset;
        }
        this.stale = true;
        const reached = await this.patch(offset);
        this.stale = false;
        return reached;
      });
    }
    return this.location.split("/").pop();
  }

  /** The server has begun it. Who stopped it meanwhile did not know yet what to discard. */
  begun(location, more = {}) {
    this.location = location;
    keep(this.key, { location, name: this.file.name, size: this.file.size, ...more });
    if (!this.over) return;
    discard(this);
    throw new Error("Stopped.");
  }

  /** The job is made, or the server has dropped what it refused: there is nothing to resume, and nothing to discard. */
  forget() {
    keep(this.key, null);
    this.location = null;
  }

  pause() {
    this.paused = true;
    this.abort();
  }

  resume() {
    this.paused = false;
    this.wake();
  }

  abort() {
    for (const request of this.requests) request.abort();
  }

  /** Have go on what waits: after a pause, or before another try. */
  wake() {
    for (const resolve of this.wakers) resolve();
    this.wakers.clear();
  }

  stop() {
    this.over = true;
    this.abort();
    this.wake();
    if (this.location) discard({ key: this.key, location: this.location });
  }

  async unpaused() {
    while (this.paused && !this.over) await new Promise((resolve) => { this.wakers.add(resolve); });
    if (this.over) throw new Error("Stopped.");
  }

  /** Repeat an action whose connection broke, longer and longer apart; what the server refuses is final. */
  async patiently(action) {
    for (let tries = 0; ; tries += 1) {
      await this.unpaused();
      try {
        return await action();
      } catch (problem) {
        if (problem.final || ((problem.damaged || problem.unread) && tries + 1 >= IN_A_ROW)) throw problem;
        if (this.paused || this.over) continue;
        const pause = PAUSES[Math.min(tries, PAUSES.length - 1)];
        this.waiting(pause / 1000, problem);
        await new Promise((resolve) => { this.wakers.add(resolve); setTimeout(resolve, pause); addEventListener("online", resolve, { once: true }); });
      }
    }
  }

  /** Whether the server speaks tus; raises what it has against the file. */
  async create() {
    const name = btoa(String.fromCharCode(...new TextEncoder().encode(nameOf(this.file))));
    const answer = await this.patiently(async () => {
      const answer = await fetch("/api/v1/uploads", {
        method: "POST", headers: { ...HEADERS, "Upload-Length": this.file.size, "Upload-Metadata": `filename ${name}` },
      });
      // A proxy whose server is away, or who wants a key first, says nothing of tus either.
      if (!answer.headers.has("Tus-Resumable") && !answer.ok && !UNKNOWN.includes(answer.status)) throw await refusal(answer);
      return answer;
    });
    if (!answer.headers.has("Tus-Resumable")) return false;
    if (answer.status !== 201) throw await refusal(answer);
    this.begun(answer.headers.get("Location"));
    return true;
  }

  /** Send the slice at `offset`; the offset behind it. */
  async patch(offset) {
    const [least, most] = CHECKED_SLICES;
    const size = this.digest ? Math.min(most, Math.max(least, Math.round(CHECKED_SECONDS * (this.bytesPerSecond ?? 0)))) : SLICE;
    let body = this.file.slice(offset, Math.min(this.file.size, offset + size));
    const headers = { ...HEADERS, "Upload-Offset": offset, "Content-Type": "application/offset+octet-stream" };
    if (this.digest) {
      // What is sent is what was summed, also if the file is written to meanwhile.
      body = await read(body);
      headers["Upload-Checksum"] = `${this.digest} ${btoa(String.fromCharCode(...new Uint8Array(await crypto.subtle.digest(DIGESTS[this.digest], body))))}`;
      await this.unpaused();
    }
    const begun = performance.now();
    const { status, request } = await this.transfer("PATCH", this.location, headers, body, (loaded, rate) => this.progress(offset + loaded, rate));
    if (status !== 204) throw Object.assign(outcome(status, request), { damaged: status === DAMAGED });
    const reached = Number(request.getResponseHeader("Upload-Offset"));
    this.bytesPerSecond = ((reached - offset) * 1000) / (performance.now() - begun);
    return reached;
  }

  async whole() {
    const path = `/api/v1/uploads?name=${encodeURIComponent(nameOf(this.file))}`;
    return this.patiently(async () => {
      const { status, request } = await this.transfer("PUT", path, {}, this.file, this.progress);
      if (status === 201) return JSON.parse(request.responseText).upload;
      throw outcome(status, request);
    });
  }

  /** XMLHttpRequest, since fetch() tells no upload progress; `told(bytes, megabytesPerSecond)` is called while they go. */
  transfer(method, path, headers, body, told) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      this.requests.add(request);
      const begun = performance.now();
      request.open(method, path);
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
      request.upload.onprogress = ({ loaded }) => told(loaded, loaded / (performance.now() - begun) / 1000);
      request.onloadend = () => this.requests.delete(request);
      request.onload = () => resolve({ status: request.status, request });
      request.onerror = () => reject(new Error("The connection broke."));
      request.onabort = () => reject(new Error("Stopped."));
      request.send(body);
    });
  }
}

/** The bytes of a piece of a file. A drive that is unplugged, or a share that is away, may come back. */
export function read(piece) {
  return piece.arrayBuffer().catch(() => { throw Object.assign(new Error("The file cannot be read any more. Choose it again."), { unread: true }); });
}

/**
 * What a bad answer means: final where it will be the same again, and `refused` where it is our server's word on this file,
 * of which it then keeps nothing; to be tried again where something stumbled.
 */
export function outcome(status, request) {
  let problem = {};
  try { problem = JSON.parse(request.responseText); } catch { /* not ours */ }
  const text = [problem.title, problem.detail !== problem.title && problem.detail, problem.advice].filter(Boolean).join(" ");
  const final = status >= 400 && status < 500 && ![408, 409, 423, 429, DAMAGED].includes(status) && problem.code !== "UPLOAD_INCOMPLETE";
  return Object.assign(new Error(text || `The server answered ${status}.`), { final, refused: final && Boolean(problem.code) && !LOCKED.includes(status) });
}

async function refusal(answer) {
  return outcome(answer.status, { responseText: await answer.text() });
}
