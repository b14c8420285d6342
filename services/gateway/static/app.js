// Every page loads this one module; what is not on the page costs nothing but its download.
import "./uploader.js";
import "./jobs.js";
import "./strip.js";
import "./job.js";
import "./player.js";
import "./try.js";
import { onConnection } from "./stream.js";

document.querySelector("[data-theme-switch]")?.addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "light" ? "dark" : "light";
  document.dispatchEvent(new Event("themechange"));
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept then */ }
});

const offline = document.getElementById("offline");
onConnection((connected) => { offline.hidden = connected; });
