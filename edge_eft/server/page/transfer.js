/** Conversations as files: JSON, which has all of them, and Markdown, which a person reads. */

import { element } from "./dom.js";
import { FORMAT, readConversations, TURN_MARK, VERSION } from "./transfer_read.js";
import { inWords } from "./weights.js";

/**
 * @typedef {import("./store.js").Store} Store
 * @typedef {import("./tree.js").Tree} Tree
 */

/**
 * Conversations as JSON: every variant of every turn. A file of one has the path shown as
 * `messages` besides, as /load of the terminal's chat and other programs read it.
 * @param {Store} store
 * @param {string[]} ids
 * @param {{tokens?: boolean}} what  whether with what each model thought of each token
 * @returns {Promise<Blob>}
 */
export async function asJson(store, ids, { tokens = false } = {}) {
  const parts = [`{"format": "${FORMAT}", "version": ${VERSION}`];
  const trees = [];
  for (const id of ids) {
    trees.push(await store.load(id));
  }
  if (trees.length === 1) {
    parts.push(`, ${JSON.stringify(asMessages(trees[0])).slice(1, -1)}`);
  }
  parts.push(', "conversations": [');
  for (const [i, { about, turns }] of trees.entries()) {
    parts.push(`${i ? "," : ""}\n${JSON.stringify(about).slice(0, -1)}, "turns": [`);
    let comma = "";
    for (const turn of turns.values()) {
      // Piece by piece: what was thought of tokens is megabytes.
      const thoughts = tokens ? { tokens: await store.tokens(turn.id) } : {};
      parts.push(`${comma}\n${JSON.stringify({ ...turn, ...thoughts })}`);
      comma = ",";
    }
    parts.push("]}");
  }
  parts.push("]}\n");
  return new Blob(parts, { type: "application/json" });
}

/** What the terminal's chat saves. */
function asMessages(tree) {
  const { system, explain, draft, stop, ...numbers } = tree.about.settings;
  const drawn = Object.entries(numbers).filter(([, value]) => value !== null);
  /** @type {Object<string, any>} */
  const settings = { ...Object.fromEntries(drawn), ...weightsOf(tree.about.dials) };
  if (stop?.length) {
    settings.stop = stop;
  }
  if (typeof draft === "number") {
    settings.draft = draft;
  }
  const messages = tree.path().map(({ role, text }) => ({ role, content: text }));
  return { system: system || null, settings, messages };
}

function weightsOf({ mode, alpha, beta, mix, only }) {
  const dial = mode === "beta" ? { beta } : { alpha };
  return only ? { only } : { ...dial, ...(mix ? { mix } : {}) };
}

/**
 * The path shown, as Markdown that `readConversations` reads.
 * @param {Tree} tree
 * @param {Object<string, number>} deltas  the recipe's
 */
export function asMarkdown(tree, deltas) {
  const { title, model, created, dials } = tree.about;
  const { system, ...settings } = tree.about.settings;
  const about = { version: VERSION, title, model, created, settings, dials };
  const parts = [comment(FORMAT, about), `# ${title}`];
  if (system) {
    parts.push(...section({ role: "system" }, "System", system));
  }
  for (const turn of tree.path()) {
    const { role, text, created, model, state, problem, marks } = turn;
    const heading = role === "user" ? "User" : `Assistant${aside(turn, deltas)}`;
    parts.push(...section({ role, created, model, state, problem, marks }, heading, text));
  }
  return `${parts.join("\n\n")}\n`;
}

/** How a reply was drawn: " (atlas, α 1, α 0.3 from token 12 on, seed 4, cut)". */
function aside({ model, marks = [], body, state }, deltas) {
  const from = (at) => (at ? ` from token ${at + 1} on` : "");
  const said = [
    model,
    ...marks.map(({ at, weights }) => inWords(weights, deltas) + from(at)),
    body?.seed !== undefined && `seed ${body.seed}`,
    state !== "done" && state,
  ].filter(Boolean);
  return said.length ? ` (${said.join(", ")})` : "";
}

function section(about, heading, text) {
  // A text that has such a line itself gets a backslash, as Markdown does it.
  const safe = text.replace(/^(\\*)(?=<!-- edge_eft\.)/gmu, "\\$1");
  return [comment(TURN_MARK, about), `## ${heading}`, safe];
}

function comment(name, content) {
  const json = JSON.stringify(content).replaceAll("--", "\\u002d\\u002d");
  return `<!-- ${name} ${json.replaceAll(">", "\\u003e")} -->`;
}

/**
 * Keep the conversations of a file, all or none; an Error says in a line why not.
 * @param {Store} store
 * @param {File} file
 * @returns {Promise<string[]>}  their ids
 */
export async function importFile(store, file) {
  try {
    const wholes = readConversations(await file.text());
    for (const whole of wholes) {
      await store.add(whole);
    }
    return wholes.map((whole) => whole.about.id);
  } catch (error) {
    throw new Error(`${file.name} was not imported: ${error.message}`);
  }
}

/** Hand the person a conversation as JSON. */
export async function saveJson({ app: { store } }, id, what) {
  const { about } = await store.load(id);
  download(await asJson(store, [id], what), `${fileName(about.title)}.json`);
}

/** Hand the person all conversations. */
export async function saveAll({ app: { store } }) {
  const ids = (await store.conversations()).map(({ id }) => id);
  download(await asJson(store, ids), "conversations.json");
}

/** Hand the person the path shown of a conversation as Markdown. */
export async function saveMarkdown({ app: { store, deltas } }, id) {
  const tree = await store.load(id);
  download(new Blob([asMarkdown(tree, deltas)]), `${fileName(tree.about.title)}.md`);
}

function download(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A file's name: "Capital of Peru?" → "capital-of-peru". */
export function fileName(title) {
  const words = title.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return words.join("-").slice(0, 60) || "conversation";
}
