// One film on its way straight to an S3 store, past the gateway: parts by presigned PUTs, where the server offers them
// (`s3_page_uploads`). A store that this browser cannot reach, or whose CORS refuses it, gets nothing: then by tus.
import { Upload, discard, keep, kept, outcome } from "./upload.js";

const TRIES = 2; // of the very first part, after which the store counts as out of reach

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
    const { name, size } = this.file;
    // The same key for each try, so that an answer that got lost does not leave a second upload behind.
    const once = { "Idempotency-Key": `parts-${Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("")}` };
    const made = await this.patiently(() => ask("POST", "/api/v1/uploads/direct", { name: name.slice(0, 200), size_bytes: size }, once));
    this.location = `/api/v1/uploads/${made.upload_id}`;
    keep(this.key, { location: this.location, name, size, parts: true });
    return { ...made, parts: [] };
  }

  /** PUT the parts that the store lacks, one after the other; each URL is fresh, since a pause may outlast one. */
  async put({ part_bytes: step, part_count: count, parts }) {
    const there = new Set(parts.map((part) => part.number));
    let stored = parts.reduce((sum, part) => sum + part.size_bytes, 0);
    let tries = 0;
    for (let number = 1; number <= count; number += 1) {
      if (there.has(number)) continue;
      const body = this.file.slice((number - 1) * step, number * step);
      await this.patiently(async () => {
        const signed = await ask("POST", `${this.location}/parts`, { numbers: [number] }).catch(whole);
        if (!signed) return; // made one object before a reload: there is no part left to send
        const { status } = await this.transfer("PUT", signed.parts[0].url, {}, body, stored).catch((problem) => {
          if (!stored && !this.paused && !this.over && ++tries >= TRIES) Object.assign(problem, { final: true, unreachable: true });
          throw problem;
        });
        if (status >= 300) throw new Error(`The store answered ${status}.`);
      });
      stored += body.size;
      this.progress(stored, 0);
    }
  }
}

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
  if (problem.status === 404) return null;
  throw problem;
}
