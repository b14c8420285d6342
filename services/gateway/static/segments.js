// The state of a film's segments as events bring it: the finished ones as bits, of the others what is known.

/** Which segments are done: base64 of little-endian bits. */
export function doneOf(state) {
  const bytes = state ? Uint8Array.from(atob(state.done), (letter) => letter.charCodeAt(0)) : new Uint8Array();
  return (index) => Boolean((bytes[index >> 3] ?? 0) & (1 << (index & 7)));
}

/** A strip's state from the list of segments, for jobs that finished before this page was opened. */
export function stateOf(segments) {
  let bits = 0n;
  for (const segment of segments) if (segment.state === "done") bits |= 1n << BigInt(segment.index);
  const bytes = [];
  for (; bits; bits >>= 8n) bytes.push(Number(bits & 255n));
  return { done: btoa(String.fromCharCode(...bytes)), cells: segments.filter((item) => !["done", "waiting"].includes(item.state)) };
}
