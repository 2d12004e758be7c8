/**
 * Conversations in the browser's own storage.
 *
 * A turn is a record of its own, and tokens are only ever appended: two tabs write past each other,
 * and the end of a long reply costs no more to keep than its beginning. What the browser refuses
 * stays in memory, and is tried again with whatever is written next.
 */

import { Database, Memory } from "./database.js";
import { Emitter } from "./events.js";
import { Tree } from "./tree.js";

/**
 * @typedef {import("./tree.js").Conversation} Conversation
 * @typedef {import("./tree.js").Turn} Turn
 * @typedef {import("./tree.js").Token} Token
 *
 * All of a conversation. A chunk: the tokens of a turn that come after `at` others.
 * @typedef {{turn: string, at: number, tokens: Token[]}} Chunk
 * @typedef {{about: Conversation, turns: Turn[], chunks: Chunk[]}} Whole
 */

const CLOSED = "the page was closed before the reply ended";
const CHUNK = 50; // tokens of a record
const QUIET = 2500; // ms without a write after which a reply is dead, where locks cannot tell

/** @returns {Promise<Store>} */
export async function openStore() {
  return new Store(await Database.open().catch(() => null));
}

/** Events: "changed" {conversation}: another tab changed one; "problem": `problem` is another. */
export class Store extends Emitter {
  /** Why what is written is not kept, in a line; "": it is. */
  problem = "";
  #database;
  #memory = new Memory();
  #channel = new BroadcastChannel("edge_eft");
  #writes = Promise.resolve(); // one after the other
  #gone = new Set(); // ids of conversations and turns that were deleted, in whichever tab
  #awaited = new Set(); // ids of replies that other tabs are streaming

  /** @param {?Database} database  null: nothing can be kept */
  constructor(database) {
    super();
    this.#database = database;
    this.problem = database ? "" : NOTHING_KEPT;
    this.#channel.onmessage = ({ data: { conversation, gone, back } }) => {
      gone?.forEach((id) => this.#gone.add(id));
      back?.forEach((id) => this.#gone.delete(id));
      this.emit("changed", { conversation });
    };
  }

  /**
   * All conversations, the one that was used last first.
   * @returns {Promise<Conversation[]>}
   */
  async conversations() {
    return (await this.#all("conversations")).sort((a, b) => b.updated - a.updated);
  }

  /**
   * Return a conversation, without the tokens of its replies; null: there is none.
   * A reply that is not streamed any more is "cut".
   * @param {string} id
   * @returns {Promise<?Tree>}
   */
  async load(id) {
    const [about] = await this.#all("conversations", id);
    const turns = about ? await this.#all("turns", id) : [];
    const alive = turns.some(isStreaming) ? await aliveAmong(turns) : null;
    for (const turn of turns.filter(isStreaming)) {
      if (alive.has(turn.id)) {
        this.#awaitEnd(turn);
      } else {
        Object.assign(turn, { state: "cut", problem: CLOSED });
      }
    }
    turns.forEach((turn) => delete turn.saved);
    return about ? new Tree(about, turns) : null;
  }

  /** @param {Conversation} about */
  async saveConversation(about) {
    await this.#save("conversations", about, about.id);
  }

  /** @param {Turn} turn */
  async saveTurn(turn) {
    await this.#save("turns", { ...turn, saved: Date.now() }, turn.conversation);
  }

  /**
   * Keep tokens of a turn that come after `at` others; what was there is replaced.
   * @param {string} turn  its id
   * @param {number} at
   * @param {Token[]} tokens
   */
  async appendTokens(turn, at, tokens) {
    if (!this.#gone.has(turn)) {
      await this.#write(() => this.#memory.put(inChunks(turn, at, tokens)));
    }
  }

  /**
   * @param {string} turn  its id
   * @returns {Promise<Token[]>}
   */
  async tokens(turn) {
    return joined(await this.#all("tokens", turn));
  }

  /**
   * Delete a conversation, and return all of it, as `add` takes it; null: there is none.
   * @param {string} id
   * @returns {Promise<?Whole>}
   */
  async remove(id) {
    const [about] = await this.#all("conversations", id);
    const turns = await this.#all("turns", id);
    const ids = turns.map((turn) => turn.id);
    const chunks = (await Promise.all(ids.map((turn) => this.#all("tokens", turn)))).flat();
    const gone = [id, ...ids];
    gone.forEach((one) => this.#gone.add(one));
    await this.#write(async () => {
      this.#memory.remove(id, ids);
      await this.#database?.remove(id, ids);
    });
    this.#channel.postMessage({ conversation: id, gone });
    return about ? { about, turns, chunks } : null;
  }

  /**
   * Keep all of a conversation: one that was deleted, or comes from a file.
   * @param {Whole} whole
   */
  async add({ about, turns, chunks }) {
    const back = [about.id, ...turns.map((turn) => turn.id)];
    back.forEach((id) => this.#gone.delete(id));
    await this.#put([
      ["conversations", about],
      ...turns.map((turn) => ["turns", turn]),
      ...chunks.flatMap(({ turn, at, tokens }) => inChunks(turn, at, tokens)),
    ]);
    this.#channel.postMessage({ conversation: about.id, back });
  }

  /**
   * Return the ids of the conversations that have every word, in the title or in a text.
   * @param {string} words
   * @returns {Promise<Set<string>>}
   */
  async search(words) {
    const wanted = folded(words).split(/\s+/u).filter(Boolean);
    const missing = new Map(); // of each conversation: the words that are not found yet
    const look = (id, text) => {
      const left = missing.get(id) ?? [];
      if (left.length) {
        const folds = folded(text);
        missing.set(
          id,
          left.filter((word) => !folds.includes(word)),
        );
      }
    };
    for (const { id, title } of await this.conversations()) {
      missing.set(id, wanted);
      look(id, title);
    }
    this.#memory.over([], "turns").forEach(({ conversation, text }) => look(conversation, text));
    for await (const turns of this.#database?.batches("turns") ?? []) {
      turns.forEach(({ conversation, text }) => look(conversation, text));
    }
    return new Set([...missing.keys()].filter((id) => missing.get(id).length === 0));
  }

  async #all(kind, owner) {
    await this.#writes;
    let records = [];
    try {
      records = (await this.#database?.all(kind, owner)) ?? [];
    } catch {
      this.#tell(NOTHING_KEPT);
    }
    return this.#memory.over(records, kind, owner);
  }

  async #save(kind, record, conversation) {
    if (!this.#gone.has(record.id) && !this.#gone.has(conversation)) {
      await this.#put([[kind, record]]);
      this.#channel.postMessage({ conversation });
    }
  }

  async #put(entries) {
    const copies = structuredClone(entries); // as they are now
    await this.#write(() => this.#memory.put(copies));
  }

  /** Change what is in memory, after the changes before, and write it; a refusal is told. */
  async #write(change) {
    this.#writes = this.#writes.then(async () => {
      try {
        await change();
        if (this.#database) {
          await this.#database.put(this.#memory.entries);
          this.#memory.clear();
          this.#tell("");
        }
      } catch (error) {
        this.#tell(error?.name === "QuotaExceededError" ? FULL : NOTHING_KEPT);
      }
    });
    await this.#writes;
  }

  #tell(problem) {
    if (problem !== this.problem) {
      this.problem = problem;
      this.emit("problem");
    }
  }

  /** Tell when a reply that another tab is streaming has ended, however. */
  async #awaitEnd({ id, conversation }) {
    if (!this.#awaited.has(id)) {
      this.#awaited.add(id);
      await (navigator.locks?.request(lockOf(id), () => {}) ?? pause(QUIET));
      this.#awaited.delete(id);
      this.emit("changed", { conversation });
    }
  }
}

const FULL =
  "The browser's storage is full. What comes now is lost when this page is closed: " +
  "delete or export conversations.";
const NOTHING_KEPT =
  "The browser keeps nothing here, as in a private window. What is not exported is lost when " +
  "this page is closed.";

/** The Web Lock that the tab holds that streams a reply. */
export function lockOf(turnId) {
  return `reply-${turnId}`;
}

function isStreaming(turn) {
  return turn.state === "streaming";
}

/** Return the ids of turns that a tab is streaming. */
async function aliveAmong(turns) {
  if (navigator.locks) {
    const { held } = await navigator.locks.query();
    const names = new Set(held.map((lock) => lock.name));
    return new Set(turns.map(({ id }) => id).filter((id) => names.has(lockOf(id))));
  }
  // Browsers have locks for https and this machine only: one that streams is one that writes.
  const fresh = turns.filter((turn) => Date.now() - turn.saved < QUIET);
  return new Set(fresh.map(({ id }) => id));
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Records of tokens, none of which takes long to read. */
function inChunks(turn, at, tokens) {
  const starts = Array.from({ length: Math.ceil(tokens.length / CHUNK) }, (_, i) => i * CHUNK);
  const chunk = (i) => ({ turn, at: at + i, tokens: tokens.slice(i, i + CHUNK) });
  return starts.map((i) => ["tokens", chunk(i)]);
}

/** Join chunks of tokens; one that begins within another replaces the rest of it. */
function joined(chunks) {
  let tokens = [];
  for (const chunk of chunks.sort((a, b) => a.at - b.at)) {
    if (chunk.at > tokens.length) {
      break; // what follows a gap would stand at the wrong place
    }
    tokens = tokens.slice(0, chunk.at).concat(chunk.tokens);
  }
  return tokens;
}

/** A text without capitals and accents: who searches for "peru" finds "Perú". */
function folded(text) {
  return text.toLowerCase().normalize("NFKD").replace(/\p{M}/gu, "");
}
