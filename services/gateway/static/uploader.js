// Films go up one after the other as raw bodies with progress; each becomes a job as soon as it is stored.
import { announce, post } from "./stream.js";

class Uploader extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("form");
    this.list = this.querySelector(".uploads");
    this.input = this.querySelector("input[type=file]");
    this.queue = [];
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.add(this.input.files); });
    this.input.addEventListener("change", () => { this.add(this.input.files); this.input.value = ""; });
    this.ranges();
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
      collect(event.dataTransfer).then((files) => this.add(files));
    });
    addEventListener("paste", (event) => { if (event.clipboardData?.files.length) this.add(event.clipboardData.files); });
    addEventListener("beforeunload", (event) => { if (this.busy || this.queue.length) event.preventDefault(); });
  }

  ranges() {
    const words = { convergence: (value) => (value < 0.35 ? "far" : value > 0.65 ? "near" : "middle") };
    for (const range of this.querySelectorAll("input[type=range]")) {
      range.addEventListener("input", () => {
        delete range.dataset.untouched;
        const output = this.querySelector(`output[data-for=${range.name}]`);
        output.textContent = words[range.name]?.(Number(range.value)) ?? `${Number(range.value).toFixed(1)} %`;
      });
    }
  }

  options() {
    const options = { layout: this.form.layout.value, crf: Number(this.form.crf.value) };
    for (const name of ["divergence", "convergence"]) {
      if (!("untouched" in this.form[name].dataset)) options[name] = Number(this.form[name].value);
    }
    return options;
  }

  add(files) {
    for (const file of files) {
      const row = document.createElement("li");
      row.innerHTML = '<span class="name"></span><span class="said">Waiting</span><button type="button" class="quiet">Stop</button><progress max="1" value="0"></progress>';
      row.querySelector(".name").textContent = file.name;
      row.querySelector("progress").setAttribute("aria-label", `Upload of ${file.name}`);
      const item = { file, row, options: this.options(), stopped: false };
      row.querySelector("button").addEventListener("click", () => this.stop(item));
      this.list.append(row);
      this.list.hidden = false;
      this.queue.push(item);
    }
    this.next();
  }

  stop(item) {
    item.stopped = true;
    item.request?.abort();
    this.queue = this.queue.filter((other) => other !== item);
    item.row.remove();
    this.list.hidden = !this.list.children.length;
  }

  async next() {
    if (this.busy || !this.queue.length) return;
    this.busy = true;
    const item = this.queue.shift();
    const say = (text) => { item.row.querySelector(".said").textContent = text; };
    try {
      if (item.file.size === 0) throw new Error("The file is empty.");
      if (item.file.size > Number(this.dataset.limit)) throw new Error("The file is larger than the limit.");
      const stored = await this.send(item, say);
      say("Stored. Making the job");
      const job = await post("/api/v1/jobs", { upload: stored.upload, filename: item.file.name.slice(0, 200), title: item.file.name.replace(/\.[^.]{1,5}$/, ""), options: item.options });
      announce(`${item.file.name} is uploaded`);
      this.stop(item);
      const alone = !this.queue.length && !this.list.children.length;
      this.busy = false;
      if (alone) location.assign(`/jobs/${job.job_id}`);
    } catch (problem) {
      if (!item.stopped) {
        item.row.classList.add("failed");
        item.row.querySelector("progress").remove();
        item.row.querySelector("button").textContent = "Dismiss";
        say(problem.message);
        announce(`${item.file.name}: ${problem.message}`);
      }
    }
    this.busy = false;
    this.next();
  }

  send(item, say) {
    // XMLHttpRequest, since fetch() tells no upload progress.
    return new Promise((resolve, reject) => {
      const request = item.request = new XMLHttpRequest();
      const bar = item.row.querySelector("progress");
      const begun = performance.now();
      request.open("PUT", `/api/v1/uploads?name=${encodeURIComponent(item.file.name.slice(0, 200))}`);
      request.responseType = "json";
      request.upload.onprogress = ({ loaded, total }) => {
        bar.value = loaded / total;
        const rate = loaded / (performance.now() - begun) / 1000;
        say(`${Math.floor((100 * loaded) / total)} %, ${rate.toFixed(rate < 10 ? 1 : 0)} MB/s`);
      };
      request.onload = () => (request.status === 201 ? resolve(request.response) : reject(new Error([request.response?.title, request.response?.advice].filter(Boolean).join(" ") || `The server answered ${request.status}.`)));
      request.onerror = () => reject(new Error("The connection broke. Drop the file again."));
      request.onabort = () => reject(new Error("Stopped."));
      request.send(item.file);
    });
  }
}

/** Files of a drop; folders are opened. */
async function collect(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const found = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      if (file.type.startsWith("video/") || /\.(mkv|ts|m2ts|mts|avi|flv|wmv|vob|mpg)$/i.test(file.name)) found.push(file);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!batch.length) return;
      for (const inner of batch) await walk(inner);
    }
  };
  for (const entry of entries) await walk(entry);
  return found.sort((one, other) => one.name.localeCompare(other.name));
}

customElements.define("ss-uploader", Uploader);
