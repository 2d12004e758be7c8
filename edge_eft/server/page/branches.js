/** Ways to a reply from another: gone on with, said otherwise, branched off at a token. */

import { answer, begin, fresh, named, said, settle, tokensOf } from "./replies.js";
import { sameWeights, weightsAt } from "./weights.js";

/**
 * @typedef {import("./app.js").App} App
 * @typedef {import("./tree.js").Turn} Turn
 * @typedef {import("./weights.js").Weights} Weights
 */

/**
 * Go on with a reply that was cut or stopped, or is at the longest that was asked for: as it was
 * drawn at its end, or as the dials are if they were turned since. A reply without tokens is begun
 * again.
 * @param {App} app
 * @param {Turn} turn
 */
export async function goOn(app, turn) {
  const { tree, settings } = app;
  const turned = app.isTurned ? app.weights : null;
  await settle(app, tree);
  const tokens = await tokensOf(app, turn);
  const weights = turned ?? weightsAt(turn.marks, tokens.length);
  const { system, ...before } = turn.body ?? fresh(app);
  const deltas = app.deltasOf(turn.model);
  const body = { ...withWeights(before, turn, weights, deltas), max_tokens: settings.max_tokens };
  turn.body = { system, ...body };
  const mark = { at: tokens.length, offset: turn.text.length, weights };
  if (!tokens.length && !turn.text) {
    Object.assign(turn, { marks: [mark], reasoning: undefined });
  } else if (!sameWeights(weightsAt(turn.marks, tokens.length), weights, deltas)) {
    turn.marks = [...(turn.marks ?? []).filter(({ at }) => at < mark.at), mark];
  }
  return begin(app, tree, turn, tokens, tokens.length);
}

/**
 * Say a turn otherwise: the user's has a reply of its own, the assistant's stands as it is written.
 * @param {App} app
 * @param {Turn} turn
 * @param {string} text
 */
export async function edit(app, turn, text) {
  const { tree } = app;
  await settle(app, tree);
  if (turn.role === "user") {
    const asked = text === turn.text ? turn : said(app, tree, turn.parent, text);
    return answer(app, tree, asked);
  }
  const { model } = turn;
  const own = { role: "assistant", text, model, state: "done", from: turn.id, n_tokens: 0 };
  return keepWhole(app, tree, tree.add(turn.parent, own), []);
}

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
  const chosen = text.trim() || text;
  return branch(app, turn, isEnd ? { ...more, printed: null } : { ...more, chosen });
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
async function branch(app, source, { tokens, at, printed: more, chosen, weights }) {
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
    ...{ role: "assistant", model: source.model, from: source.id, n_given: tokens.length, chosen },
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

/** Keep and show a reply of which nothing is to come. */
async function keepWhole(app, tree, turn, tokens) {
  await Promise.all([app.store.appendTokens(turn.id, 0, tokens), app.store.saveTurn(turn)]);
  await app.keep(tree);
  app.emit("turns");
  return null;
}

/** A body with other weights; the rest of it as it was. */
function withWeights(body, turn, weights, deltas) {
  const { alpha, beta, mix, ...rest } = body;
  return { ...rest, ...named(turn.model, weights, deltas) };
}
