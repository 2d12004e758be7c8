/** Numbers as they are shown. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** No more digits than it has. */
export function shown(value) {
  return String(Number(value.toFixed(4)));
}

/** "1 token", "2,000 tokens". */
export function counted(n, noun) {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}

/** "5.2 GiB" */
export function bytes(n) {
  const power = Math.min(4, Math.floor(Math.log2(Math.max(1, n)) / 10));
  const value = n / 1024 ** power;
  return `${value.toFixed(power && value < 100 ? 1 : 0)} ${UNITS[power]}`;
}

/** "8.1 tokens/s" */
export function speed(perSecond) {
  return `${perSecond.toFixed(perSecond < 10 ? 1 : 0)} tokens/s`;
}

/** "67 %" */
export function share(part, whole) {
  return `${Math.round((100 * part) / whole)} %`;
}
