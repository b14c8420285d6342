// Languages in words: films name them by codes.
const WORDS = new Intl.DisplayNames("en", { type: "language", fallback: "none" });

/** What a code such as "deu" stands for; null where it stands for nothing. */
function wordOf(code) {
  try {
    return code && code !== "und" ? WORDS.of(code) ?? null : null;
  } catch {
    return null; // not a code at all
  }
}

function ownWordOf(code) {
  return new Intl.DisplayNames(code, { type: "language" }).of(code);
}

/** What a track is called: by its language, and by its own name where that says more. A bare code may have a number. */
export function nameOf(name, code) {
  const word = wordOf(code);
  if (!word) return name;
  if (name.startsWith(code) && /^( \d+)?$/.test(name.slice(code.length))) return word + name.slice(code.length);
  const said = name.toLowerCase();
  return [word, ownWordOf(code)].some((item) => said.includes(item.toLowerCase())) ? name : `${word}: ${name}`;
}
