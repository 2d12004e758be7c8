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
const STEPS = [Math.log(2), Math.log(10), Math.log(100)];
const SAME = Math.log(1.05);

/** How much likelier the delta made a token, in nats; 0 where it is not known. */
export function change({ logprobs: { emulated, base } = {} }) {
  if (emulated === undefined || base === undefined || emulated === base) {
    return 0;
  }
  return emulated - base;
}

/** −3 … 3: a hundredth, a tenth, half, about as likely, twice, ten times, a hundred times. */
export function level(nats) {
  return Math.sign(nats) * STEPS.filter((step) => Math.abs(nats) >= step - 1e-6).length;
}

/**
 * The likeliest candidates to one role, best first.
 * @param {Token} token
 * @param {string} role  or "emulated"
 * @returns {Candidate[]}
 */
export function ranked(token, role, n = 5) {
  const known = (token.candidates ?? []).filter((one) => one.logprobs[role] !== undefined);
  return known.sort((a, b) => b.logprobs[role] - a.logprobs[role]).slice(0, n);
}

/**
 * The base's first choice where the delta changed it, else null.
 * @param {Token} token
 */
export function displaced({ candidates = [] }) {
  const [base, emulated] = ["base", "emulated"].map((role) => likeliest(candidates, role));
  return base && emulated && base.id !== emulated.id ? base : null;
}

function likeliest(candidates, role) {
  const more = (best, one) => (one.logprobs[role] > (best?.logprobs[role] ?? -Infinity) ? one : best);
  return candidates.reduce(more, null);
}

/**
 * The weights that a token was chosen with.
 * @param {Reply} reply
 * @param {number} index
 * @returns {Weights}
 */
export function weightsAt(reply, index) {
  return reply.marks.findLast(({ at }) => at <= index)?.weights ?? {};
}

/**
 * How a candidate's log-probability adds up: log p = Σ terms − log Z.
 *
 * α: base + Σ αw · (tuned − reference); β: Σ w · tuned + β · (base − Σ w · reference). One model
 * alone has no sum; neither has what a model rules out.
 * @param {Candidate} candidate
 * @param {Weights} weights
 * @param {Object<string, number>} deltas
 * @returns {?{terms: {factor: number, value: number, of: string}[], logZ: number, total: number}}
 */
export function sumOf({ logprobs }, weights, deltas) {
  if (weights.only !== undefined) {
    return null;
  }
  const factors = coefficients(weights, deltas);
  const used = Object.keys(factors).filter((role) => factors[role] !== 0);
  if (![...used, "emulated"].every((role) => logprobs[role] > IMPOSSIBLE)) {
    return null;
  }
  const names = Object.keys(deltas).filter((name) => used.includes(`tuned:${name}`));
  const terms = weights.beta === undefined
    ? alphaTerms(logprobs, factors, names)
    : betaTerms(logprobs, factors, names, weights.beta);
  const total = terms.reduce((sum, { factor, value }) => sum + factor * value, 0);
  return { terms, logZ: total - logprobs.emulated, total: logprobs.emulated };
}

function alphaTerms(logprobs, factors, names) {
  const deltas = names.map((name) => ({
    factor: factors[`tuned:${name}`],
    value: logprobs[`tuned:${name}`] - logprobs[`reference:${name}`],
    of: name,
  }));
  return [{ factor: 1, value: logprobs.base, of: "base" }, ...deltas];
}

function betaTerms(logprobs, factors, names, beta) {
  const tuned = names.map((name) => ({
    factor: factors[`tuned:${name}`],
    value: logprobs[`tuned:${name}`],
    of: `tuned ${name}`,
  }));
  const less = names.map((name) => factors[`tuned:${name}`] * logprobs[`reference:${name}`]);
  const value = logprobs.base - less.reduce((sum, one) => sum + one, 0);
  return [...tuned, { factor: beta, value, of: "base − reference" }];
}

/** A log-probability as people read it: "97 %", "0.3 %", "< 0.1 %". */
export function percent(logprob) {
  if (logprob === undefined) {
    return "?";
  }
  const share = 100 * Math.exp(logprob);
  if (logprob <= IMPOSSIBLE) {
    return "never";
  }
  if (share < 0.1) {
    return "< 0.1 %";
  }
  if (share >= 99.95) {
    return share > 100 - 1e-4 ? "100 %" : "> 99.9 %";
  }
  return `${share >= 10 && share < 99.5 ? Math.round(share) : share.toFixed(1)} %`;
}

/** A change in words: "3.2 times likelier", "12 times less likely", "about as likely". */
export function inWordsOf(nats) {
  const size = Math.abs(nats);
  if (size < SAME) {
    return "about as likely";
  }
  const way = nats > 0 ? "likelier" : "less likely";
  const times = Math.exp(size);
  if (times >= 1e6) {
    return `over a million times ${way}`;
  }
  const figure = times < 9.95 ? times.toFixed(1) : Math.round(times).toLocaleString("en");
  return `${figure} times ${way}`;
}

/** A number with a real minus sign. */
export function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

// What would be invisible, or would change what is seen around it: controls, bidi, zero width.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]/gu;

/** A text in which nothing is invisible but spaces and line ends. */
export function disclosed(text) {
  return text.replace(UNSEEN, (one) => `⟨${hex(one)}⟩`);
}

function hex(character) {
  return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** A token's text where it stands by itself: its spaces and line ends can be seen. */
export function standing(text) {
  const seen = disclosed(text).replace(/ /gu, "·").replace(/\n/gu, "↵").replace(/\t/gu, "⇥");
  return seen || "(nothing)";
}

/** A token's text as it is read out: white space by its name. */
export function spoken(text) {
  const words = disclosed(text).trim();
  if (words) {
    return words;
  }
  const names = { " ": "space", "\n": "line end", "\t": "tab" };
  const parts = [...disclosed(text)].map((one) => names[one] ?? one);
  const [first] = parts;
  const same = parts.length > 1 && parts.every((one) => one === first);
  return (same ? `${parts.length} ${first}s` : parts.join(", ")) || "nothing";
}
