/** One reply as it comes: asked for, kept, steered in mid-reply, and ended one way or another. */

import { Emitter } from "./events.js";
import { Places, tokenOf } from "./incoming.js";
import { lockOf } from "./store.js";
import { sameWeights } from "./weights.js";

const SAVED_EVERY = 500; // ms
const SHOWN_EVERY = 250; // ms, at the least: no frames are drawn while the page is hidden
const STOPPING = 1000; // ms that the server has for its last words

/**
 * Runs an assistant's turn. It tells of what comes by events: "text", "tokens" ({from}: the first
 * new one), "mark" ({mark}), "progress" and "end".
 */
export class Generation extends Emitter {
  #abort = new AbortController();
  #inbox = { text: "", reasoning: "", entries: [] };
  #isDue = false; // to be shown
  #saving = null; // a timer
  #saved; // tokens that the store has
  #isStopped = false;
  #reason = "";
  #wanted = null; // weights that the server is to be told
  #isTurning = false; // it is being told
  #n_chunks = 0;
  #begun = 0;

  /**
   * @param {import("./app.js").App} app
   * @param {import("./tree.js").Tree} tree
   * @param {import("./tree.js").Turn} turn  whose text is that of the tokens given
   * @param {{tokens?: Object[], n_saved?: number, keep?: boolean}} options  tokens that the reply
   *   begins with; how many of them the store has; whether it is kept at all
   */
  constructor(app, tree, turn, { tokens = [], n_saved = 0, keep = true } = {}) {
    super();
    [this.app, this.tree, this.turn, this.tokens] = [app, tree, turn, tokens];
    this.#saved = n_saved;
    this.keep = keep;
    this.n_before = tokens.length;
    /** What the server knows the reply by. */
    this.id = null;
    /** @type {?{processed: number, total: number}} */
    this.progress = null;
    this.rate = 0; // tokens per second
    this.firstTokenMs = null;
    this.accepted = 0;
    this.drafted = 0;
    this.places = new Places(turn, tokens.length);
    /** @type {Promise<void>} fulfilled when it has ended; never rejected */
    this.done = Promise.resolve();
  }

  /** Ask for it. @param {Object} body  of the request */
  run(body) {
    return (this.done = this.#run(body));
  }

  async #run(body) {
    const { app, turn } = this;
    app.generations.set(turn.id, this);
    Object.assign(turn, { state: "streaming", problem: undefined, code: undefined });
    turn.timings = undefined;
    this.#begun = performance.now();
    app.emit("generation", this);
    const unlock = holdLock(lockOf(turn.id));
    this.#save();
    try {
      for await (const event of app.api.chat(body, this.#abort.signal)) {
        this.#take(event);
      }
      turn.state = this.#isStopped ? "stopped" : this.#reason === "length" ? "length" : "done";
    } catch (error) {
      this.#fail(error);
    }
    this.#show(true);
    this.#dropMarks();
    clearTimeout(this.#saving);
    await this.#save();
    unlock();
    app.generations.delete(turn.id);
    this.emit("end");
    app.emit("generation", this);
  }

  /** End it; what has come is the reply. */
  async stop() {
    this.#isStopped = true;
    const giveUp = () => this.#abort.abort();
    if (!this.id) {
      return giveUp();
    }
    setTimeout(giveUp, STOPPING);
    await this.app.api.control(this.id, "stop").catch(giveUp);
  }

  /**
   * Turn its dials: the weights act from the next token on.
   * @param {import("./weights.js").Weights} weights
   */
  async setWeights(weights) {
    this.#wanted = weights;
    if (this.#isTurning || !this.id) {
      return;
    }
    this.#isTurning = true;
    while (this.#wanted) {
      const asked = this.#wanted;
      this.#wanted = null;
      try {
        const { from_tokens } = await this.app.api.control(this.id, "set_weights", asked);
        this.#mark(this.n_before + from_tokens[0], asked);
      } catch (error) {
        if (error.status !== 404) {
          this.app.announce(error.message); // 404: it has just ended
        }
      }
    }
    this.#isTurning = false;
  }

  #take(event) {
    if (!this.id && event.id) {
      this.id = event.id;
      if (this.#wanted) {
        this.setWeights(this.#wanted);
      }
    }
    if (event.prompt_progress) {
      this.progress = event.prompt_progress;
      this.emit("progress");
    }
    const [{ delta = {}, explain = [], finish_reason = null } = {}] = event.choices ?? [];
    this.#reason = finish_reason ?? this.#reason;
    this.turn.timings = event.timings ?? this.turn.timings;
    const { content = "", reasoning_content = "", tool_calls = [] } = delta;
    if (content || reasoning_content || tool_calls.length || explain.length) {
      this.#begins();
      this.#n_chunks++;
      this.#inbox.text += content ?? "";
      this.#inbox.reasoning += reasoning_content ?? "";
      this.#inbox.entries.push(...explain);
      this.#showSoon();
    }
  }

  #begins() {
    if (this.firstTokenMs === null) {
      this.firstTokenMs = performance.now() - this.#begun;
      this.turn.first_token_ms = this.firstTokenMs;
      this.progress = null;
      this.emit("progress");
    }
  }

  #showSoon() {
    if (!this.#isDue) {
      this.#isDue = true;
      const show = () => this.#isDue && this.#show(false);
      requestAnimationFrame(show);
      setTimeout(show, SHOWN_EVERY);
    }
  }

  #show(isLast) {
    this.#isDue = false;
    const { turn, tokens } = this;
    const { text, reasoning, entries } = this.#inbox;
    const from = tokens.length;
    this.#inbox = { text: "", reasoning: "", entries: [] };
    turn.text += text;
    turn.reasoning = reasoning ? (turn.reasoning ?? "") + reasoning : turn.reasoning;
    for (const entry of entries) {
      tokens.push(tokenOf(entry));
      this.drafted += entry.drafted === null ? 0 : 1;
      this.accepted += entry.drafted ? 1 : 0;
    }
    this.#place(isLast);
    this.#measure();
    if (text || reasoning) {
      this.emit("text");
    }
    if (tokens.length > from) {
      this.emit("tokens", { from });
    }
    if (!isLast) {
      this.#saveSoon();
    }
  }

  #place(isLast) {
    const { turn, tokens, places } = this;
    const first = places.n_placed;
    places.place(tokens, isLast);
    for (const mark of turn.marks ?? []) {
      if (mark.at >= first && mark.at < tokens.length) {
        mark.offset = textOffset(tokens[mark.at]);
      } else if (mark.at >= tokens.length && tokens.length) {
        mark.offset = turn.text.length;
      }
    }
  }

  #measure() {
    const seconds = (performance.now() - this.#begun - (this.firstTokenMs ?? 0)) / 1000;
    const n_new = this.tokens.length - this.n_before || this.#n_chunks;
    this.rate = seconds > 0.1 ? n_new / seconds : 0;
  }

  /** Note weights that act from a token on; the last of those that a token had is what counts. */
  #mark(at, weights) {
    const { turn, tokens, app } = this;
    if (turn.state !== "streaming") {
      return; // it has ended meanwhile
    }
    const marks = (turn.marks ??= []);
    const offset = tokens[at] ? textOffset(tokens[at]) : turn.text.length;
    const mark = { at, offset, weights };
    const n_before = marks.filter((one) => one.at < at).length;
    const held = marks[n_before - 1];
    const isNews = !held || !sameWeights(held.weights, weights, app.deltas);
    marks.splice(n_before, marks.length, ...(isNews ? [mark] : []));
    this.emit("mark", { mark });
    this.#saveSoon();
  }

  /** No token was drawn behind the last one: weights that would have acted there did not. */
  #dropMarks() {
    const { marks = [] } = this.turn;
    while (this.tokens.length && marks.at(-1)?.at >= this.tokens.length) {
      marks.pop();
    }
  }

  #fail(error) {
    const { turn } = this;
    if (error.name === "AbortError" && this.#isStopped) {
      turn.state = "stopped";
      return;
    }
    turn.state = error.status >= 400 && error.status < 500 ? "failed" : "cut";
    Object.assign(turn, { problem: error.message, code: error.code || undefined });
  }

  #saveSoon() {
    this.#saving ??= setTimeout(() => this.#save(), SAVED_EVERY);
  }

  /** Keep the turn and the tokens that are new: tokens first, so that none is missing. */
  async #save() {
    this.#saving = null;
    if (!this.keep) {
      return;
    }
    const { app, tree, turn, tokens, places } = this;
    const fresh = tokens.slice(this.#saved, places.n_placed);
    const at = this.#saved;
    this.#saved += fresh.length;
    turn.n_tokens = this.#saved;
    // Both at once: what the record says of the text is then what the tokens say.
    await Promise.all([app.store.appendTokens(turn.id, at, fresh), app.store.saveTurn(turn)]);
    if (turn.state !== "streaming") {
      tree.about.updated = Date.now();
      await app.keep(tree);
    }
  }
}

/** Characters of the reply's text before a token; none of it is before a thought. */
function textOffset(token) {
  return token.part === "reasoning" ? 0 : token.offset;
}

/** Tell other tabs, and this one when it is loaded again, that somebody writes. */
function holdLock(name) {
  if (!navigator.locks) {
    return () => {};
  }
  let release = () => {};
  const held = new Promise((resolve) => (release = resolve));
  navigator.locks.request(name, () => held);
  return release;
}
