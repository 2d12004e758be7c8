/** What the numbers of a token mean, and how they are said. Pure: no page, no server. */

import { coefficients } from "./weights.js";

/**
 * @typedef {import("./tree.js").Token} Token
 * @typedef {import("./tree.js").Weights} Weights
 * @typedef {{id: number, text: string, logprobs: Object<string, number>}} Candidate
 *
 * A reply as these views take it; the first mark, at 0, has the weights that it began with.
 * @typedef {{
 *   deltas: Object<string, number>, tokens: Token[], marks: {at: number, weights: Weights}[],
 * }} Reply
 */

const IMPOSSIBLE = -9998; // and below; the server says −9999
const STEPS = [2, 10, 100].map((factor) => Math.log(factor) - 1e-6);

/** How much likelier the delta made a token, in nats; 0 where it is not known. */
export function change({ logprobs: { emulated, base } }) {
  return emulated === undefined || base === undefined ? 0 : emulated - base;
}

/** −3 … 3: a hundredth, a tenth, half, about as likely, twice, ten times, a hundred times. */
export function level(nats) {
  return Math.sign(nats) * STEPS.filter((step) => Math.abs(nats) >= step).length;
}

/**
 * The likeliest candidates to one role, or to "emulated", best first.
 * @returns {Candidate[]}
 */
export function ranked({ candidates = [] }, role) {
  const known = candidates.filter((one) => one.logprobs[role] !== undefined);
  return known.sort((a, b) => b.logprobs[role] - a.logprobs[role]).slice(0, 5);
}

/** The base's first choice where the delta changed it, else null. @returns {?Candidate} */
export function displaced({ candidates = [] }) {
  const [base, emulated] = ["base", "emulated"].map((role) => {
    const odds = (one) => one?.logprobs[role] ?? -Infinity;
    return candidates.reduce((best, one) => (odds(one) > odds(best) ? one : best), null);
  });
  return base && emulated && base.id !== emulated.id ? base : null;
}

/**
 * How a candidate's log-probability adds up: log p = Σ factor · value − log Z.
 *
 * α: base + Σ αw · (tuned − reference); β: Σ w · tuned + β · (base − Σ w · reference). One model
 * alone has no sum; neither has what a model rules out.
 * @param {Candidate} candidate
 * @param {Weights} weights
 * @param {Object<string, number>} deltas
 * @returns {?{terms: number[][], logZ: number, total: number}}  terms: [factor, value]
 */
export function sumOf({ logprobs: log }, weights, deltas) {
  const factors = coefficients(weights, deltas);
  const used = Object.keys(factors).filter((role) => factors[role] !== 0);
  const known = [...used, "emulated"].every((role) => log[role] > IMPOSSIBLE);
  if (weights.only !== undefined || !known) {
    return null;
  }
  const names = Object.keys(deltas).filter((name) => used.includes(`tuned:${name}`));
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const weight = (name) => factors[`tuned:${name}`];
  const tuned = (name) => log[`tuned:${name}`];
  const reference = (name) => log[`reference:${name}`];
  const terms = [];
  if (weights.beta === undefined) {
    const added = names.map((name) => [weight(name), tuned(name) - reference(name)]);
    terms.push([1, log.base], ...added);
  } else {
    const less = sum(names.map((name) => weight(name) * reference(name)));
    terms.push(...names.map((name) => [weight(name), tuned(name)]));
    terms.push([weights.beta, log.base - less]);
  }
  const logZ = sum(terms.map(([factor, value]) => factor * value)) - log.emulated;
  return { terms, logZ, total: log.emulated };
}

/** A sum of two decimals that adds up: its first term makes up for what the others lose. */
export function rounded({ terms: [[factor, value], ...others], logZ: z, total: p }) {
  const [logZ, total] = [z, p].map(hundredths);
  const rest = others.map(([times, one]) => [times, hundredths(one)]);
  const sum = rest.reduce((all, [times, one]) => all + times * one, 0);
  const first = factor ? hundredths((total + logZ - sum) / factor) : hundredths(value);
  return { terms: [[factor, first], ...rest], logZ, total };
}

function hundredths(value) {
  return Math.round(value * 100) / 100;
}

/** A log-probability as people read it: "97 %", "0.3 %", "< 0.1 %". */
export function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  if (logprob <= IMPOSSIBLE) {
    return "never";
  }
  if (share < 0.1) {
    return "< 0.1 %";
  }
  if (share >= 99.95) {
    return share > 99.9999 ? "100 %" : "> 99.9 %";
  }
  return `${share >= 10 && share < 99.5 ? Math.round(share) : share.toFixed(1)} %`;
}

/** A change in words: "3.2 times likelier", "12 times less likely", "about as likely". */
export function inWordsOf(nats) {
  const times = Math.exp(Math.abs(nats));
  if (times < 1.05) {
    return "about as likely";
  }
  const few = times < 9.95 ? times.toFixed(1) : Math.round(times).toLocaleString("en");
  return `${times < 1e6 ? few : "over a million"} times ${nats > 0 ? "likelier" : "less likely"}`;
}

/** Two decimals, with a real minus sign. */
export function signed(value) {
  return value
    .toFixed(2)
    .replace(/^-0\.00$/u, "0.00")
    .replace("-", "−");
}

// What would be invisible, or would change what is seen around it: controls, bidi, zero width.
const UNSEEN = new RegExp(
  String.raw`[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e` +
    String.raw`\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]`,
  "gu",
);

/** A text in which nothing is invisible but spaces and line ends. */
export function disclosed(text) {
  const code = (one) => one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return text.replace(UNSEEN, (one) => `⟨U+${code(one)}⟩`);
}

/** A token's text where it stands by itself: its spaces and line ends can be seen. */
export function standing(text) {
  const signs = { " ": "·", "\n": "↵", "\t": "⇥" };
  return disclosed(text).replace(/[ \n\t]/gu, (one) => signs[one]) || "∅";
}

/** A token's text as it is read out: white space by its name. */
export function spoken(text) {
  const names = { " ": "space", "\n": "line end", "\t": "tab" };
  const white = [...text].map((one) => names[one] ?? one);
  return disclosed(text).trim() || white.join(", ") || "nothing";
}
