/**
 * A conversation: a tree of turns, so that nothing that was said is lost by an edit or another try.
 * What is shown is the path from the root to the leaf that was looked at last.
 */

/**
 * @typedef {import("./weights.js").Weights} Weights
 *
 * A token of a reply. Log-probabilities are natural ones; −9999 stands for impossible.
 * @typedef {{
 *   id: number, text: string, drafted: ?boolean, logprobs: Object<string, number>,
 *   candidates: {id: number, text: string, logprobs: Object<string, number>}[],
 *   offset: number, part?: "reasoning",
 * }} Token
 *
 * `offset` counts the characters before it in the turn's text, or in its reasoning (`part`).
 *
 * Weights that act from a token on: `at` counts the reply's tokens, `offset` characters of its text.
 * The first mark of a reply is at 0: the weights it began with.
 * @typedef {{at: number, offset: number, weights: Weights}} Mark
 *
 * One turn. Of an assistant's: `state` is "streaming", "done", "length" (max_tokens), "stopped" (by
 * the user), "cut" (the connection, a reload, the engine) or "failed"; `problem` says why in a line;
 * `n_given` of its tokens were taken over from another reply, `from`; `body` is what was sent,
 * with the system prompt (`system`) for all messages. `model` is the recipe's name. `code` is the
 * server's for the problem, `chosen` what the last token given says if the person took it.
 * @typedef {{
 *   id: string, conversation: string, parent: ?string, role: "user" | "assistant", text: string,
 *   created: number, reasoning?: string, model?: string, state?: string, problem?: string,
 *   body?: Object, marks?: Mark[], n_tokens?: number, n_given?: number, from?: string,
 *   timings?: Object, first_token_ms?: number, code?: string, chosen?: string,
 * }} Turn
 *
 * @typedef {{
 *   id: string, title: string, renamed: boolean, created: number, updated: number, model: string,
 *   settings: Object, dials: Object, leaf: ?string,
 * }} Conversation
 */

/** An id that nothing else has. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const TITLE = 60; // characters

export class Tree {
  /**
   * @param {Conversation} about
   * @param {Turn[]} turns
   */
  constructor(about, turns = []) {
    this.about = about;
    /** @type {Map<string, Turn>} */
    this.turns = new Map(turns.map((turn) => [turn.id, turn]));
  }

  /**
   * A conversation that begins.
   * @param {{model: string, settings: Object, dials: Object}} start
   */
  static begun({ model, settings, dials }) {
    const now = Date.now();
    const times = { created: now, updated: now };
    const title = { title: "New conversation", renamed: false };
    return new Tree({ id: newId(), ...title, ...times, model, settings, dials, leaf: null });
  }

  /** The turns that are shown, the first one first. */
  path(leaf = this.about.leaf) {
    const path = [];
    for (let turn = this.turns.get(leaf); turn; turn = this.turns.get(turn.parent)) {
      path.push(turn);
    }
    return path.reverse();
  }

  /**
   * The turns that stand in one place, the oldest first.
   * @param {?string} parent
   */
  children(parent) {
    const found = [...this.turns.values()].filter((turn) => turn.parent === parent);
    return found.sort((a, b) => a.created - b.created);
  }

  /** The other turns in a turn's place, and it. */
  siblings(turn) {
    return this.children(turn.parent);
  }

  /**
   * Add a turn below another, and show it.
   * @param {?string} parent
   * @param {Partial<Turn>} values
   * @returns {Turn}
   */
  add(parent, values) {
    // Two turns of one millisecond stay in their order.
    const last = Math.max(0, ...this.children(parent).map((turn) => turn.created));
    const created = Math.max(Date.now(), last + 1);
    const turn = { id: newId(), conversation: this.about.id, parent, text: "", created, ...values };
    this.turns.set(turn.id, turn);
    this.about.leaf = turn.id;
    this.about.updated = Date.now();
    if (!this.about.renamed && turn.role === "user" && parent === null) {
      this.about.title = firstWords(turn.text);
    }
    return turn;
  }

  /** Show a turn: the leaf becomes the newest below it. */
  show(turn) {
    let leaf = turn;
    for (let below = this.children(leaf.id); below.length; below = this.children(leaf.id)) {
      leaf = below[below.length - 1];
    }
    this.about.leaf = leaf.id;
  }

  /** Take over the turns of another state of the same conversation; what was shown goes on. */
  merge(other) {
    for (const turn of other.turns.values()) {
      const known = this.turns.get(turn.id);
      this.turns.set(turn.id, known ? Object.assign(known, turn) : turn);
    }
    const leaf = this.turns.get(this.about.leaf);
    if (leaf) {
      this.show(leaf);
    }
  }

  /**
   * What the server is sent: the path up to a turn, with the system prompt.
   * @param {Turn} last  the last turn of it
   * @param {string} system
   */
  messages(last, system) {
    const path = this.path(last.id).map(({ role, text }) => ({ role, content: text }));
    return system.trim() ? [{ role: "system", content: system }, ...path] : path;
  }
}

/** A title: the first words of a text, on one line. */
export function firstWords(text) {
  const line = text
    .slice(0, 10 * TITLE)
    .trim()
    .replace(/\s+/gu, " ");
  if (line.length <= TITLE) {
    return line || "New conversation";
  }
  const cut = line.slice(0, TITLE).toWellFormed(); // no half of a character
  return `${cut.slice(0, cut.lastIndexOf(" ") > TITLE / 2 ? cut.lastIndexOf(" ") : TITLE)}…`;
}
