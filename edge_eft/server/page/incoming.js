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
    tokens.slice(this.n_placed).forEach((token) => this.#put(token));
  }

  #placed(token) {
    let found = this.#find(token);
    const thinks = this.part === "reasoning" && this.#text().length - this.end > AHEAD;
    if (!found && this.part === "reasoning" && !thinks && this.turn.text) {
      [this.part, this.end] = ["text", 0];
      found = this.#find(token);
    }
    this.end = found?.at ?? this.end;
    this.#put(token);
    this.end += found?.length ?? 0;
    return Boolean(found);
  }

  /** Where the text has a token's, or all of it but the blanks that it begins with. */
  #find({ text }) {
    for (const one of [text, text.trimStart()].filter(Boolean)) {
      const near = this.#text().slice(this.end, this.end + AHEAD + one.length);
      if (near.includes(one)) {
        return { at: this.end + near.indexOf(one), length: one.length };
      }
    }
    return null;
  }

  /** Whether all text has its tokens, so that more of it may come. */
  #isBehind() {
    return this.end >= this.#text().length;
  }

  #text() {
    return this.turn[this.part] ?? "";
  }

  #put(token) {
    token.offset = this.end;
    delete token.part;
    if (this.part === "reasoning" && this.turn.reasoning) {
      token.part = this.part;
    }
  }
}
