/** How a reply is asked for: to something that is said, or once more. */

import { Generation } from "./generation.js";
import { mainDelta } from "./weights.js";

/** @typedef {import("./app.js").App} App */

const N_EXPLAINED = 5; // of each model's likeliest tokens
const SAMPLING = [
  ...["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty"],
  ...["frequency_penalty", "max_tokens", "draft"],
];

/**
 * What the server is asked, but for the messages: settings that are null are left to it, a seed is
 * always there, so that the reply can be had again.
 * @param {{model: string, weights: Object, settings: Object, deltas: Object}} asked
 */
export function bodyOf({ model, weights, settings, deltas }) {
  const body = { ...named(model, weights, deltas), seed: settings.seed ?? drawnSeed() };
  for (const name of SAMPLING.filter((one) => settings[one] !== null)) {
    body[name] = settings[name];
  }
  if (settings.stop.length) {
    body.stop = settings.stop;
  }
  if (settings.explain) {
    body.explain = N_EXPLAINED;
  }
  return { ...body, stream: true, return_progress: true };
}

/** The model and the dials: one model alone is asked for by its name. */
export function named(model, weights, deltas) {
  if (weights.only === undefined) {
    return { model, ...weights };
  }
  const part = weights.only === `tuned:${mainDelta(deltas)}` ? "tuned" : weights.only;
  return { model: `${model}:${part}` };
}

export function drawnSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/** The tokens of a turn, as far as they are known. */
export async function tokensOf(app, turn) {
  const running = app.generations.get(turn.id);
  return running ? running.tokens : (await app.store.tokens(turn.id)).slice(0, turn.n_tokens ?? 0);
}

/**
 * Say something in the open conversation, and have the reply.
 * @param {App} app
 * @param {string} text
 */
export async function send(app, text) {
  const { tree } = app;
  await settle(app, tree);
  return answer(app, tree, said(app, tree, tree.about.leaf, text));
}

/**
 * Have another reply in a reply's place, as dials and settings now are.
 * @param {App} app
 * @param {import("./tree.js").Turn} turn
 */
export async function regenerate(app, turn) {
  const { tree } = app;
  await settle(app, tree);
  return answer(app, tree, tree.turns.get(turn.parent));
}

/** Only one reply comes in a conversation: what is running is stopped. */
export async function settle(app, tree) {
  const stopped = app.running(tree.about.id).map((one) => one.stop().then(() => one.done));
  await Promise.all(stopped);
}

export function said(app, tree, parent, text) {
  const turn = tree.add(parent, { role: "user", text });
  app.store.saveTurn(turn);
  return turn;
}

export function fresh(app) {
  const { model, weights, settings, deltas } = app;
  return { ...bodyOf({ model, weights, settings, deltas }), system: settings.system };
}

export function answer(app, tree, asked) {
  const turn = tree.add(asked.id, {
    role: "assistant",
    model: app.model,
    body: fresh(app),
    marks: [{ at: 0, offset: 0, weights: app.weights }],
  });
  return begin(app, tree, turn, [], 0);
}

export function begin(app, tree, turn, tokens, n_saved) {
  const { system, ...body } = turn.body;
  const asked = tree.turns.get(turn.parent);
  const messages = tree.messages(asked, system);
  if (tokens.length) {
    body.prefix_ids = tokens.map(({ id }) => id);
  } else if (turn.text) {
    messages.push({ role: "assistant", content: turn.text });
  }
  const generation = new Generation(app, tree, turn, { tokens, n_saved });
  app.isTurned = false;
  generation.run({ ...body, messages });
  app.keep(tree);
  app.emit("turns");
  return generation;
}
