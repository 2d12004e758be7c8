/** Things that are not to happen too often. */

/**
 * Return a function that calls `act`, but not more often than every so many milliseconds: what
 * comes sooner waits, and only the last of it is done.
 * @template {any[]} Given
 * @param {(...given: Given) => void} act
 * @param {number} pause  ms
 * @returns {((...given: Given) => void) & {drop: () => void}}  `drop`: what waits is not done
 */
export function paced(act, pause) {
  let timer = 0;
  let waiting = null;
  const next = () => {
    const given = waiting;
    waiting = null;
    timer = given ? setTimeout(next, pause) : 0;
    if (given) {
      act(...given);
    }
  };
  const often = (...given) => {
    waiting = given;
    if (!timer) {
      next();
    }
  };
  return Object.assign(often, { drop: () => (waiting = null) });
}
