// Before the first paint: dark unless somebody chose light, or the system asks for light and nobody chose.
(() => {
  const root = document.documentElement;
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* storage may be denied; then the choice is not kept */ }
  root.dataset.theme = chosen ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  root.classList.add("js");
})();
