// One film on its way straight to an S3 store, past the gateway: parts by presigned PUTs, where the server offers them
// (`s3_page_uploads`). A store that this browser cannot reach, or whose CORS refuses it, gets nothing: then by tus.
import { Upload, discard, kept, nameOf, outcome, read } from "./upload.js";

const AT_ONCE = 3; // HTTP/1.1 gives a host six connections; a player may need some of them
const DAMAGED = /<Code>(BadDigest|XAmzContentChecksumMismatch)</;
const TRIES = 2; // of one part while none is stored, after which the store counts as out of reach

export class PartsUpload extends Upload {
  async send() {
    const known = kept(this.key);
    if (known && !known.parts) return super.send(); // begun by tus
    this.location = known?.location ?? null;
    let shape = this.location && (await this.patiently(() => ask("GET", `${this.location}/parts`).catch(gone)));
    this.resumed = Boolean(shape?.parts.length);
    shape ??= await this.begin();
    try {
      await this.put(shape);
    } catch (problem) {
      if (!problem.unreachable) throw problem;
      await discard({ key: this.key, location: this.location });
      return super.send();
    }
    this.paused = false;
    await this.patiently(() => ask("POST", `${this.location}/complete`));
    return this.location.split("/").pop();
  }

  async begin() {
    // The same key for each try, so that an answer that got lost does not leave a second upload behind.
    const once = { "Idempotency-Key": `parts-${Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("")}` };
    const made = await this.patiently(() => ask("POST", "/api/v1/uploads/direct", { name: nameOf(this.file), size_bytes: this.file.size }, once));
    this.begun(`/api/v1/uploads/${made.upload_id}`, { parts: true });
    return { ...made, parts: [] };
  }

  /** PUT the parts that the store lacks, a few at once: over a long way one connection alone fills no line. */
  async put({ part_bytes: step, part_count: count, parts, takes_sums: sums }) {
    const there = new Set(parts.map((part) => part.number));
    this.numbers = Array.from({ length: count }, (_, index) => index + 1).filter((number) => !there.has(number));
    this.step = step;
    this.sums = sums && Boolean(self.crypto?.subtle); // none on a plain address in the network, which is not secure
    this.stored = parts.reduce((sum, part) => sum + part.size_bytes, 0);
    this.moving = new Map(); // of each part on its way: [bytes, megabytes a second]
    this.lost = null;
    await Promise.all(Array.from({ length: AT_ONCE }, () => this.line()));
    if (this.lost) throw this.lost;
  }

  /** One connection: parts one after the other until none is left, or one is lost for good, and all others with it. */
  async line() {
    try {
      while (this.numbers.length && !this.lost) await this.part(this.numbers.shift());
    } catch (problem) {
      if (this.lost) return;
      this.lost = problem;
      this.abort();
      this.wake();
    }
  }

  /** Each URL is fresh, since a pause may outlast one. */
  async part(number) {
    const [from, to] = [(number - 1) * this.step, Math.min(this.file.size, number * this.step)];
    let tries = 0;
    await this.patiently(async () => {
      if (this.lost) return;
      const { sums } = this;
      const body = sums ? await read(this.file.slice(from, to)) : this.file.slice(from, to);
      const sum = sums && { sha256: [hex(await crypto.subtle.digest("SHA-256", body))] };
      const signed = await ask("POST", `${this.location}/parts`, { numbers: [number], ...sum }).catch(whole);
      if (!signed) return; // made one object before a reload: there is no part left to send
      await this.unpaused();
      if (this.lost) return;
      const [{ url, headers }] = signed.parts;
      const sending = this.transfer("PUT", url, headers, body, (...told) => this.moved(number, told));
      const { status, request } = await sending.catch((problem) => {
        if (this.stored || this.paused || this.over) throw problem;
        // It may be the sum's header that its CORS refuses.
        if (sums) this.sums = false;
        else if (++tries >= TRIES) Object.assign(problem, { final: true, unreachable: true });
        throw problem;
      }).finally(() => this.moving.delete(number));
      if (status >= 300) {
        const damaged = DAMAGED.test(request.responseText);
        if (!damaged && (status < 500 || status === 501)) this.sums = false; // a store that knows none
        throw Object.assign(new Error(damaged ? "What the store gets is not what is sent." : `The store answered ${status}.`), { damaged });
      }
      this.stored += to - from;
      this.moved(number, [0, 0]);
      this.moving.delete(number);
    });
  }

  moved(number, told) {
    this.moving.set(number, told);
    const [bytes, rate] = [0, 1].map((which) => [...this.moving.values()].reduce((sum, item) => sum + item[which], 0));
    this.progress(this.stored + bytes, rate);
  }
}

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** An answer's JSON; raises the server's words. */
async function ask(method, path, body, headers = {}) {
  const sent = body && { body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } };
  const answer = await fetch(path, { method, ...sent });
  const text = await answer.text();
  if (!answer.ok) throw Object.assign(outcome(answer.status, { responseText: text }), { status: answer.status });
  return JSON.parse(text);
}

/** null for an upload that is one object already. */
function whole(problem) {
  if (problem.status === 409) return null;
  throw problem;
}

/** null for an upload that the server has dropped. */
function gone(problem) {
  if (problem.status === 404 && problem.refused) return null;
  throw problem;
}
