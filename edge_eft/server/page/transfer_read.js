/** Reads conversations from files: our own, the terminal chat's, and plain messages. */

import { firstWords, newId, Tree } from "./tree.js";

export const FORMAT = "edge_eft.conversations";
export const TURN_MARK = "edge_eft.turn";
export const VERSION = 1;

const READABLE =
  "it holds no conversation. What can be imported: JSON and Markdown of this page, what /save " +
  'and log --json write in the terminal, and {"messages": […]}';

const isText = (value) => typeof value === "string";
const isNumber = (value) => Number.isFinite(value);
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isNumbers = (value) => isObject(value) && Object.values(value).every(isNumber);
const isListOf = (is) => (value) => Array.isArray(value) && value.every(is);
const oneOf = (words) => (value) => words.split(" ").includes(value);
const isMark = (one) => isNumber(one?.at) && isNumber(one.offset) && isObject(one.weights);
const isCandidate = (value) => isText(value?.text) && isNumbers(value.logprobs);
const isToken = (value) => isCandidate(value) && isListOf(isCandidate)(value.candidates);

const ROLES = oneOf("user assistant");
const TURN = {
  ...{ text: isText, reasoning: isText, model: isText, problem: isText, from: isText },
  ...{ code: isText, chosen: isText },
  ...{ created: isNumber, n_tokens: isNumber, n_given: isNumber, first_token_ms: isNumber },
  ...{ body: isObject, timings: isObject, marks: isListOf(isMark), tokens: isListOf(isToken) },
  state: oneOf("done length stopped cut failed streaming"),
};
const ABOUT = { title: isText, model: isText, created: isNumber, updated: isNumber };
const DIALS = {
  __proto__: null,
  ...{ alpha: isNumber, beta: isNumber, mix: isNumbers, only: isText },
};
const LISTS = { __proto__: null, system: isText, stop: isListOf(isText) };
const isSetting = (value) => isNumber(value) || typeof value === "boolean" || value === "auto";

/** @typedef {import("./store.js").Whole} Whole */

/**
 * Return the conversations of a text, under new ids; an Error says in a line why not.
 * @param {string} text
 * @returns {Whole[]}
 */
export function readConversations(text) {
  const plain = text.replace(/^\uFEFF/u, "");
  return plain.startsWith(`<!-- ${FORMAT} `) ? [fromMarkdown(plain)] : fromJson(plain);
}

/** Return what a table of kinds knows of a value; what is of another kind is damage. */
function known(value, kinds, where) {
  const found = {};
  for (const [name, is] of Object.entries(kinds)) {
    if (value?.[name] !== undefined) {
      check(is(value[name]), `the file is damaged: “${name}” of ${where}`);
      found[name] = value[name];
    }
  }
  return found;
}

function check(holds, problem) {
  if (!holds) {
    throw new Error(problem);
  }
}

function fromJson(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch (error) {
    const isBegun = /^\s*[[{]/u.test(text);
    throw new Error(isBegun ? `the file is cut off or damaged (${error.message})` : READABLE);
  }
  if (data?.format === FORMAT) {
    checkVersion(data);
    check(isListOf(isObject)(data.conversations), "the file is damaged: it has no conversations");
    return data.conversations.map(fromOurs);
  }
  const messages = Array.isArray(data) ? data : data?.messages;
  check(isListOf(isObject)(messages) && messages.length, READABLE);
  return [fromMessages(messages, isObject(data) ? data : {})];
}

function checkVersion({ version }) {
  check(!(version > VERSION), "a later edge_eft wrote it; update this one");
}

/** What is known about a conversation, with what of its settings and dials can be used here. */
function begun(data) {
  const about = { title: "", model: "", ...known(data, ABOUT, "a conversation") };
  const settings = {};
  for (const [name, value] of Object.entries(data.settings ?? {})) {
    if ((LISTS[name] ?? isSetting)(value)) {
      settings[name] = value;
    }
  }
  const dials = Object.entries(data.dials ?? {}).filter(([name, value]) => DIALS[name]?.(value));
  const mode = data.dials?.mode === "beta" ? "beta" : "alpha";
  const tree = Tree.begun({ model: "", settings, dials: { mode, ...Object.fromEntries(dials) } });
  Object.assign(tree.about, about, { renamed: data.renamed === true });
  return tree;
}

function fromOurs(data) {
  const { about } = begun(data);
  const where = `“${about.title}”`;
  check(isListOf(isObject)(data.turns), `the file is damaged: ${where} has no turns`);
  const ids = new Map(data.turns.map((turn) => [turn.id, newId()]));
  const chunks = [];
  const turns = data.turns.map((turn) => {
    const { tokens, from, ...said } = known(turn, TURN, `a turn of ${where}`);
    const id = ids.get(turn.id);
    const parent = ids.get(turn.parent) ?? null;
    check(ROLES(turn.role) && parent !== id && !(turn.parent && !parent), damage(where));
    if (tokens?.length) {
      chunks.push({ turn: id, at: 0, tokens });
    }
    const own = { id, conversation: about.id, parent, role: turn.role, text: "", created: 0 };
    return { ...own, ...ended(said), ...(ids.has(from) && { from: ids.get(from) }) };
  });
  const tree = new Tree(about, turns);
  about.leaf = ids.get(data.leaf) ?? turns.at(-1)?.id ?? null;
  check(countBelow(tree, null) === turns.length, damage(where));
  return finished(tree, about.leaf, chunks);
}

function damage(where) {
  return `the file is damaged: the turns of ${where} are no tree`;
}

/** How many turns hang together below one: those in a circle do not. */
function countBelow(tree, top) {
  const below = Map.groupBy(tree.turns.values(), (turn) => turn.parent);
  const waiting = [top];
  for (const id of waiting) {
    waiting.push(...(below.get(id) ?? []).map((turn) => turn.id));
  }
  return waiting.length - 1;
}

/** A reply that was coming when it was written down. */
function ended(turn) {
  const cut = { state: "cut", problem: "it was exported before the reply ended" };
  return turn.state === "streaming" ? { ...turn, ...cut } : turn;
}

function fromMessages(messages, data) {
  const settings = isObject(data.settings) ? data.settings : {};
  const dials = { ...settings, mode: "beta" in settings ? "beta" : "alpha" };
  const created = Date.parse(data.begun) || Date.now();
  const tree = begun({ settings, dials, created, model: data.recipe });
  const system = isText(data.system) ? [data.system] : [];
  for (const [i, { role, content }] of messages.entries()) {
    const text = textOf(content);
    check(text !== null, `message ${i + 1} is no text`);
    if (!tree.turns.size && oneOf("system developer")(role)) {
      system.push(text);
    } else {
      check(ROLES(role), `message ${i + 1} is of “${role}”; there is place for user and assistant`);
      tree.add(tree.about.leaf, { role, text, ...(role === "assistant" && { state: "done" }) });
    }
  }
  return withSystem(tree, system.join("\n\n"));
}

/** The text of a content: a string, or a list of parts that are texts; else null. */
function textOf(content) {
  if (isText(content)) {
    return content;
  }
  const isParts = isListOf((part) => isText(part?.text))(content);
  return isParts ? content.map((part) => part.text).join("\n") : null;
}

function fromMarkdown(text) {
  const lines = /^[^\n]*\r\n/u.test(text) ? text.replaceAll("\r\n", "\n") : text;
  const [head, ...sections] = lines.split(new RegExp(`^<!-- (?=${TURN_MARK} )`, "mu"));
  const about = contentOf(head);
  checkVersion(about);
  const tree = begun(about);
  let system = "";
  for (const [i, section] of sections.entries()) {
    const said = section.split("\n").slice(4).join("\n"); // after the heading between empty lines
    const whole = said.replace(i === sections.length - 1 ? /\n$/u : /\n\n$/u, "");
    const own = whole.replace(/^\\(?=\\*<!-- edge_eft\.)/gmu, "");
    const { role, ...turn } = contentOf(section);
    if (role === "system") {
      system = own;
    } else {
      check(ROLES(role), "the file is damaged: a turn has no role");
      const values = { ...ended(known(turn, TURN, "a turn")), role, text: own };
      tree.add(tree.about.leaf, values);
    }
  }
  return withSystem(tree, system);
}

/** What the comment tells that a section begins with. */
function contentOf(section) {
  try {
    return JSON.parse(section.split("\n")[0].replace(/^[^{]*|[^}]*$/gu, ""));
  } catch {
    throw new Error("the file is damaged: a comment that tells about it is cut or changed");
  }
}

function withSystem(tree, system) {
  if (system) {
    tree.about.settings.system = system;
  }
  return finished(tree, tree.about.leaf, []);
}

/** @returns {Whole} */
function finished(tree, leaf, chunks) {
  check(tree.turns.size, "nothing is said in it");
  const { about } = tree;
  about.title ||= firstWords(tree.path(leaf)[0].text);
  return { about, turns: [...tree.turns.values()], chunks };
}
