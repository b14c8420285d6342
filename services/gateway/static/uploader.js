// The drop zone: films go up one after the other, each becomes a job as soon as it is stored, or samples of one.
import { describe } from "./fields.js";
import { PartsUpload } from "./parts.js";
import { announce, figure, post } from "./stream.js";
import { Upload, abandon, nameOf, unfinished } from "./upload.js";

class Uploader extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("form");
    this.list = this.querySelector(".uploads");
    this.input = this.querySelector("input[type=file]");
    this.queue = [];
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.add(this.input.files); });
    this.input.addEventListener("change", () => { this.add(this.input.files); this.input.value = ""; });
    this.folder();
    for (const range of this.querySelectorAll("input[type=range]")) range.addEventListener("input", () => { delete range.dataset.untouched; });
    describe(this.form, true);
    let depth = 0;
    const over = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    addEventListener("dragenter", (event) => { if (over(event)) { depth += 1; this.classList.add("dragging"); } });
    addEventListener("dragleave", (event) => { if (over(event) && --depth <= 0) this.classList.remove("dragging"); });
    addEventListener("dragover", (event) => { if (over(event)) event.preventDefault(); });
    addEventListener("drop", (event) => {
      if (!over(event)) return;
      event.preventDefault();
      depth = 0;
      this.classList.remove("dragging");
      collect(event.dataTransfer).then(({ files, others }) => this.take(files, others));
    });
    addEventListener("paste", (event) => { if (event.clipboardData?.files.length) this.add(event.clipboardData.files); });
    addEventListener("beforeunload", (event) => { if (this.busy && navigator.userActivation?.hasBeenActive) event.preventDefault(); });
    this.remind();
  }

  /** Uploads that were cut off: the browser forgets files at a reload, so they have to be chosen once more. */
  async remind() {
    for (const item of await unfinished()) {
      if (this.rows(item.key).length) continue; // chosen meanwhile
      const row = this.row(item.name, item.offset / item.size);
      Object.assign(row.dataset, { key: item.key, unfinished: "" });
      row.querySelector(".said").textContent = `${percent(item.offset / item.size)} is here already. Choose the same file to go on.`;
      row.querySelector("[data-do=pause]").remove();
      row.querySelector("[data-do=stop]").addEventListener("click", () => { abandon(item); this.drop(row); });
    }
  }

  row(name, done = 0) {
    const row = document.createElement("li");
    row.innerHTML = '<span class="name"></span><span class="said">Waiting</span><span class="acts"><button type="button" class="quiet" data-do="pause">Pause</button><button type="button" class="quiet" data-do="stop">Stop</button></span><progress max="1"></progress>';
    row.querySelector(".name").textContent = name;
    const bar = row.querySelector("progress");
    bar.value = done;
    bar.setAttribute("aria-label", `Upload of ${name}`);
    row.querySelector("[data-do=stop]").setAttribute("aria-label", `Stop the upload of ${name}`);
    row.querySelector("[data-do=pause]").setAttribute("aria-label", `Pause the upload of ${name}`);
    this.list.append(row);
    this.list.hidden = false;
    return row;
  }

  rows(key) { return [...this.list.children].filter((row) => row.dataset.key === key); }

  drop(row) {
    row.remove();
    this.list.hidden = !this.list.children.length;
  }

  options() {
    const options = { layout: this.form.layout.value, crf: Number(this.form.crf.value) };
    // What nobody chose stays with the server.
    for (const name of ["engine", "codec", "container"]) if (this.form[name].value) options[name] = this.form[name].value;
    for (const name of ["divergence", "convergence"]) {
      if (!("untouched" in this.form[name].dataset)) options[name] = Number(this.form[name].value);
    }
    return options;
  }

  /** A folder at once, where the browser can: telephones have none to choose. */
  folder() {
    const input = this.querySelector("[data-folder]");
    if (!("webkitdirectory" in input)) return;
    input.closest("label").hidden = false;
    input.addEventListener("change", () => {
      const files = [...input.files].sort((one, other) => one.name.localeCompare(other.name));
      this.take(files.filter(isFilm), files.filter((file) => !isFilm(file)));
      input.value = "";
    });
  }

  /** The films of a folder; what else lies in it is named, since whoever gave it may miss it. */
  take(films, others) {
    const note = this.querySelector("[data-left-out]");
    note.hidden = !others.length;
    const names = others.slice(0, NAMED).map((file) => file.name).join(", ");
    const more = others.length > NAMED ? ` and ${others.length - NAMED} more` : "";
    note.textContent = `${others.length === 1 ? "1 file is not a film and was" : `${others.length} files are not films and were`} left out: ${names}${more}`;
    this.add(films);
  }

  add(files) {
    for (const file of files) {
      const row = this.row(file.name);
      const say = (text) => { row.querySelector(".said").textContent = text; };
      const upload = new (this.hasAttribute("data-straight") ? PartsUpload : Upload)(file, {
        progress: (sent, rate) => {
          row.querySelector("progress").value = sent / file.size;
          if (!upload.paused) say(`${percent(sent / file.size)}, ${figure(rate)} MB/s`);
        },
        waiting: (seconds, problem) => say(`${stumbled(problem)} in ${Math.ceil(seconds)} s.`),
      });
      for (const old of this.rows(upload.key)) if (old.matches("[data-unfinished], .failed")) this.drop(old);
      row.dataset.key = upload.key;
      const item = { file, row, upload, say, options: this.options(), sample: this.form.try.checked };
      row.querySelector("[data-do=stop]").addEventListener("click", () => this.stop(item));
      row.querySelector("[data-do=pause]").addEventListener("click", (event) => this.pause(item, event.target));
      this.queue.push(item);
    }
    this.next();
  }

  pause(item, button) {
    const { upload } = item;
    if (upload.paused) upload.resume();
    else upload.pause();
    button.textContent = upload.paused ? "Go on" : "Pause";
    button.setAttribute("aria-label", `${upload.paused ? "Go on with" : "Pause"} the upload of ${item.file.name}`);
    item.say(upload.paused ? `Paused at ${percent(item.row.querySelector("progress").value)}` : "Going on");
  }

  stop(item) {
    item.stopped = true;
    // What only failed to be sent is kept, here and there, for whoever chooses the file once more.
    if (!item.failed || item.stored) item.upload.stop();
    this.queue = this.queue.filter((other) => other !== item);
    this.drop(item.row);
  }

  async next() {
    if (this.busy || !this.queue.length) return;
    this.busy = true;
    const item = this.queue.shift();
    try {
      if (item.file.size === 0) throw new Error("The file is empty.");
      if (item.file.size > Number(this.dataset.limit)) throw new Error("The file is larger than the limit.");
      const upload = await item.upload.run();
      item.stored = true;
      item.say("Stored. Making the job");
      const address = await item.upload.patiently(() => this.make(item, upload));
      item.upload.forget();
      announce(`${item.file.name} is uploaded`);
      this.drop(item.row);
      // Nobody is led away from what is still to be read.
      const alone = !this.queue.length && this.querySelector("[data-left-out]").hidden && !this.list.querySelector("li:not([data-unfinished])");
      this.busy = false;
      if (alone) location.assign(address);
    } catch (problem) {
      if (problem.refused && !item.stored) item.upload.forget();
      if (!item.stopped) this.failed(item, problem);
    }
    this.busy = false;
    this.next();
  }

  /** The job of an upload, or its samples; the address of its page. */
  async make({ file, options, sample }, upload) {
    const title = file.name.replace(/\.[^.]{1,5}$/, "");
    const body = { upload, filename: nameOf(file), title, options };
    // Asked twice, when an answer was lost, it is still one job; with other options it is another.
    const once = { "Idempotency-Key": `upload-${upload}-${JSON.stringify(options)}` };
    if (!sample) return `/jobs/${(await post("/api/v1/jobs", body, once)).job_id}`;
    const seconds = await lengthOf(file);
    const job = await post("/api/v1/samples", seconds ? { ...body, duration_seconds: seconds } : body);
    // Samples are made in a codec and a container of their own; the film's come along, as its layout does.
    const { layout, crf, codec, container } = options;
    return `/try/${job.job_id}?${new URLSearchParams({ layout, crf, ...(codec && { codec }), ...(container && { container }) })}`;
  }

  failed(item, problem) {
    item.failed = true;
    item.row.classList.add("failed");
    item.row.querySelector("progress").remove();
    item.row.querySelector("[data-do=pause]").remove();
    const button = item.row.querySelector("[data-do=stop]");
    button.textContent = "Dismiss";
    button.setAttribute("aria-label", `Dismiss ${item.file.name}`);
    item.say(problem.message);
    announce(`${item.file.name}: ${problem.message}`, true);
  }
}

const NAMED = 8;
const isFilm = (file) => file.type.startsWith("video/") || /\.(mkv|ts|m2ts|mts|avi|flv|wmv|vob|mpg|ogv|nut)$/i.test(file.name);

const stumbled = (problem) => {
  if (problem?.damaged) return "Some bytes arrived damaged. Sending them again";
  return problem?.unread ? "The file cannot be read. Trying again" : "The connection broke. Going on";
};

const percent = (ratio) => `${Math.floor(100 * ratio)} %`;

/** Seconds of a film as far as this browser can tell; null for containers that it does not know. */
function lengthOf(file) {
  return new Promise((resolve) => {
    const video = document.createElement("video");
    const address = URL.createObjectURL(file);
    const end = (value) => { URL.revokeObjectURL(address); resolve(value); };
    video.preload = "metadata";
    video.onloadedmetadata = () => end(Number.isFinite(video.duration) ? video.duration : null);
    video.onerror = () => end(null);
    setTimeout(() => end(null), 3000);
    video.src = address;
  });
}

/** Films of a drop, and what else was in its folders; of files that were dropped by themselves the server judges. */
async function collect(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return { files: [...transfer.files], others: [] };
  const [files, others] = [[], []];
  const walk = async (entry) => {
    try {
      if (entry.isFile) {
        const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
        (isFilm(file) ? files : others).push(file);
        return;
      }
      const reader = entry.createReader();
      for (;;) {
        const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!batch.length) return;
        for (const inner of batch) await walk(inner);
      }
    } catch { // one that cannot be read takes none of the others with it
      others.push({ name: `${entry.name} (cannot be read)` });
    }
  };
  for (const entry of entries) await walk(entry);
  for (const found of [files, others]) found.sort((one, other) => one.name.localeCompare(other.name));
  return { files, others };
}

customElements.define("ss-uploader", Uploader);
