// The words beside the sliders of a form.
const SAYS = {
  convergence: (value) => (value < 0.35 ? "far" : value > 0.65 ? "near" : "middle"),
  divergence: (value) => `${value.toFixed(1)} %`,
};

/** Keep the words beside a form's sliders true; with `untouched`, one that nobody moved stays as the page says it. */
export function describe(form, untouched = false) {
  const say = (range) => { form.querySelector(`output[data-for=${range.name}]`).textContent = SAYS[range.name](Number(range.value)); };
  for (const range of form.querySelectorAll("input[type=range]")) {
    if (!untouched) say(range);
    if (!range.described) range.addEventListener("input", () => say(range));
    range.described = true;
  }
}
