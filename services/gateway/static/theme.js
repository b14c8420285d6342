// Before the first paint: dark, as a cinema is, unless somebody chose light here.
(() => {
  const root = document.documentElement;
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* storage may be denied; then the choice is not kept */ }
  root.dataset.theme = chosen ?? "dark";
  root.classList.add("js");
})();
