/** The dials, as the server takes them: {alpha, mix?} | {beta, mix?} | {only}. */

/**
 * @typedef {{alpha?: number, beta?: number, mix?: Object<string, number>, only?: string}} Weights
 */

/**
 * The coefficient of every role in the sum of logits (edge_eft/logits/weights.py).
 * @param {Weights} weights
 * @param {Object<string, number>} deltas  the recipe's, name → weight
 * @returns {Object<string, number>} role → coefficient
 */
export function coefficients(weights, deltas) {
  const sum = { base: 0 };
  for (const name of Object.keys(deltas)) {
    sum[`tuned:${name}`] = 0;
    sum[`reference:${name}`] = 0;
  }
  if (weights.only !== undefined) {
    sum[fullRole(weights.only, deltas)] = 1;
    return sum;
  }
  const mix = weights.mix ?? deltas;
  const beta = weights.beta;
  sum.base = beta ?? 1;
  for (const [name, weight] of Object.entries(mix)) {
    sum[`tuned:${name}`] = beta === undefined ? (weights.alpha ?? 1) * weight : weight;
    sum[`reference:${name}`] = -(beta ?? weights.alpha ?? 1) * weight;
  }
  return sum;
}

/**
 * The delta that "tuned" means: the only one of weight, else the one of most.
 * @param {Object<string, number>} deltas
 */
export function mainDelta(deltas) {
  const names = Object.keys(deltas);
  return names.reduce((best, name) => (deltas[name] > deltas[best] ? name : best), names[0]);
}

function fullRole(role, deltas) {
  return role === "tuned" || role === "reference" ? `${role}:${mainDelta(deltas)}` : role;
}

/** The weights that a reply's token is drawn with. @returns {Weights} */
export function weightsAt(marks, at) {
  return marks?.findLast((mark) => mark.at <= at)?.weights ?? { alpha: 1 };
}

/**
 * Weights in words, as a mark in the text says them: "α 0.8", "β 1.3", "base", "tuned alone".
 * @param {Weights} weights
 * @param {Object<string, number>} deltas
 */
export function inWords(weights, deltas) {
  if (weights.only !== undefined) {
    return `${weights.only.replace(/^tuned$/, "small tuned model")} alone`;
  }
  const dial = weights.beta === undefined ? `α ${weights.alpha ?? 1}` : `β ${weights.beta}`;
  const mix = Object.entries(weights.mix ?? {});
  if (mix.every(([name, weight]) => weight === deltas[name])) {
    return dial;
  }
  const parts = mix.filter(([, weight]) => weight !== 0).map(([name, w]) => `${name} ${w}`);
  return `${dial}, ${parts.join(" + ") || "no delta"}`;
}

/**
 * Whether two weights mean the same.
 * @param {Weights} one
 * @param {Weights} other
 * @param {Object<string, number>} deltas
 */
export function sameWeights(one, other, deltas) {
  const [a, b] = [coefficients(one, deltas), coefficients(other, deltas)];
  return [...Object.keys(a), ...Object.keys(b)].every((role) => (a[role] ?? 0) === (b[role] ?? 0));
}
