/** Replies that branch off from another at one of its tokens. */

import { begin, fresh, keepWhole, settle, tokensOf, withWeights } from "./replies.js";
import { sameWeights, weightsAt } from "./weights.js";

/**
 * @typedef {import("./app.js").App} App
 * @typedef {import("./tree.js").Turn} Turn
 * @typedef {import("./weights.js").Weights} Weights
 */

/**
 * Take another token in a reply's token's place, and go on from there as the reply was begun.
 * @param {App} app
 * @param {Turn} turn
 * @param {number} at
 * @param {{id: number, text: string, logprobs: Object<string, number>}} candidate
 */
export async function continueFrom(app, turn, at, candidate) {
  const before = await tokensOf(app, turn);
  const { id, text, logprobs } = candidate;
  const taken = { ...before[at], id, text, logprobs, drafted: null };
  const tokens = [...before.slice(0, at), taken];
  const more = { tokens, at, printed: printed(text), weights: weightsAt(turn.marks, at) };
  const isEnd = id === endToken(turn, before);
  return branch(app, turn, isEnd ? { ...more, printed: null } : more);
}

/** The token that ended a reply: the last one, where it printed nothing; undefined if none did. */
function endToken({ state, text }, tokens) {
  const last = tokens.at(-1);
  return state === "done" && last?.offset === text.length ? last.id : undefined;
}

/**
 * Go on from a reply's token with other weights, and the same seed.
 * @param {App} app
 * @param {Turn} turn
 * @param {number} at
 * @param {Weights} weights
 */
export async function replay(app, turn, at, weights) {
  const tokens = (await tokensOf(app, turn)).slice(0, at);
  return branch(app, turn, { tokens, at, printed: "", weights });
}

/** A new reply that begins with another's tokens; with `printed` null they are all of it. */
async function branch(app, source, { tokens, at, printed: more, weights }) {
  const { tree } = app;
  const all = await tokensOf(app, source);
  await settle(app, tree);
  const { system, ...body } = source.body ?? fresh(app);
  const kept = textBefore(source, all[at]);
  const part = kept.isThought ? "reasoning" : "text";
  const marks = (source.marks ?? []).filter((mark) => mark.at < at);
  const deltas = app.deltasOf(source.model);
  if (!marks.length || !sameWeights(marks.at(-1).weights, weights, deltas)) {
    marks.push({ at, offset: kept.text.length, weights });
  }
  const turn = tree.add(source.parent, {
    ...{ role: "assistant", model: source.model, from: source.id, n_given: tokens.length },
    ...{ text: kept.text, reasoning: kept.reasoning, marks },
    body: { system, ...withWeights(body, source, weights, deltas) },
  });
  const own = tokens.map((token) => ({ ...token }));
  if (more === null) {
    return keepWhole(app, tree, Object.assign(turn, { state: "done", n_tokens: own.length }), own);
  }
  turn[part] += more;
  return begin(app, tree, turn, own, 0);
}

/** What a reply says before one of its tokens; all of it, without one. */
function textBefore({ text, reasoning }, token) {
  const isThought = token?.part === "reasoning";
  if (isThought) {
    return { text: "", reasoning: reasoning.slice(0, token.offset), isThought };
  }
  return { text: token ? text.slice(0, token.offset) : text, reasoning, isThought };
}

/** What a token adds to the text; a part of a character and a template's mark add nothing. */
function printed(text) {
  return /\ufffd|^<\|.*\|>$|^<\/?s>$/u.test(text) ? "" : text;
}
