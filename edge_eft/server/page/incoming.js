/** What the server says of tokens → tokens, and where in the reply's text each of them stands. */

/** @typedef {import("./tree.js").Token} Token */

const AHEAD = 4; // characters of the text that no token before has printed

/**
 * A token as the conversation keeps it, from an entry of `explain`.
 * @returns {Token}
 */
export function tokenOf({ id, token, drafted, candidates = [], ...views }) {
  const logprobs = {};
  for (const [role, view] of Object.entries(views)) {
    logprobs[role] = view.logprob;
  }
  const likely = candidates.map((one) => ({ id: one.id, text: one.token, logprobs: one.logprobs }));
  return { id, text: token, drafted, offset: 0, logprobs, candidates: likely };
}

/**
 * Finds the place of each token in a text that comes in pieces.
 *
 * A token's own text and the reply's differ: a character may be of several tokens, a possible stop
 * string is held back for a while, control tokens print nothing. Tokens are therefore looked for
 * in the text, each a little way from where the one before ended.
 */
export class Places {
  /**
   * @param {{text: string, reasoning?: string}} turn
   * @param {number} n_placed  how many tokens have their place
   */
  constructor(turn, n_placed) {
    this.turn = turn;
    this.n_placed = n_placed;
    this.part = turn.text ? "text" : "reasoning";
    this.end = this.#text().length;
  }

  /**
   * Place what can be: all but tokens whose text has not come.
   * @param {Token[]} tokens
   * @param {boolean} isLast  no more text comes
   */
  place(tokens, isLast) {
    for (; this.n_placed < tokens.length; this.n_placed++) {
      const token = tokens[this.n_placed];
      if (!this.#placed(token) && this.#isBehind() && !isLast) {
        break;
      }
    }
    for (const token of tokens.slice(this.n_placed)) {
      Object.assign(token, this.#here());
    }
  }

  #placed(token) {
    let found = this.#find(token);
    const thinks = this.part === "reasoning" && this.#text().length - this.end > AHEAD;
    if (found < 0 && this.part === "reasoning" && !thinks && this.turn.text) {
      [this.part, this.end] = ["text", 0];
      found = this.#find(token);
    }
    this.end = found < 0 ? this.end : found;
    Object.assign(token, this.#here());
    this.end += found < 0 ? 0 : token.text.length;
    return found >= 0;
  }

  #find({ text }) {
    const near = this.#text().slice(this.end, this.end + AHEAD + text.length);
    const at = text ? near.indexOf(text) : -1;
    return at < 0 ? -1 : this.end + at;
  }

  /** Whether all text has its tokens, so that more of it may come. */
  #isBehind() {
    return this.end >= this.#text().length;
  }

  #text() {
    return this.turn[this.part] ?? "";
  }

  #here() {
    const isThought = this.part === "reasoning" && this.turn.reasoning;
    return isThought ? { offset: this.end, part: "reasoning" } : { offset: this.end };
  }
}
