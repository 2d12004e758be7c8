/** The browser's database, by promises, and what could not be written to it. */

// The key of each kind of record; the first part of several is what its records belong to.
const KEYS = {
  conversations: ["id"],
  turns: ["conversation", "id"],
  tokens: ["turn", "at"],
};

const BATCH = { conversations: 500, turns: 200, tokens: 4 }; // records that are read in one task

/**
 * A record and its kind: `["turns", turn]`.
 * @typedef {[string, any]} Entry
 */

/** What outlives the page. */
export class Database {
  /** @type {IDBDatabase} */
  #connection;

  /** Open it; throws where the browser has none, or refuses it. */
  static async open() {
    const made = new Database();
    await made.#connect();
    return made;
  }

  async #connect() {
    const request = indexedDB.open("edge_eft", 1);
    request.onupgradeneeded = () => {
      for (const [kind, key] of Object.entries(KEYS)) {
        request.result.createObjectStore(kind, { keyPath: key });
      }
    };
    this.#connection = await new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    // A later edge_eft in another tab may want to change it.
    this.#connection.onversionchange = () => this.#connection.close();
  }

  #begin(mode) {
    return this.#connection.transaction(Object.keys(KEYS), mode);
  }

  /** Do `work(transaction)`; return the result of the request that it returns. */
  async #run(mode, work) {
    let transaction;
    try {
      transaction = this.#begin(mode);
    } catch {
      await this.#connect(); // browsers close connections, after a sleep for example
      transaction = this.#begin(mode);
    }
    return new Promise((resolve, reject) => {
      transaction.onabort = () => reject(transaction.error);
      const request = work(transaction);
      transaction.oncomplete = () => resolve(request?.result);
    });
  }

  /**
   * Return records of a kind, in the order of their keys.
   * @param {string} kind
   * @param {string} [owner]  those that belong to it; else all
   */
  async all(kind, owner) {
    const found = [];
    for await (const records of this.batches(kind, owner)) {
      records.forEach((one) => found.push(one));
    }
    return found;
  }

  /** Yield the same a few at a time: to read megabytes at once would hold the page up. */
  async *batches(kind, owner) {
    let range = owner === undefined ? null : under(owner);
    for (let n = BATCH[kind]; n === BATCH[kind];) {
      const records = await this.#run("readonly", (at) => at.objectStore(kind).getAll(range, n));
      yield records;
      n = records.length;
      if (n) {
        const last = keyOf([kind, records[n - 1]]).slice(1);
        range = owner === undefined ? IDBKeyRange.lowerBound(last, true) : under(owner, last);
      }
    }
  }

  /** @param {Entry[]} entries  written together, or none of them */
  async put(entries) {
    await this.#run("readwrite", (to) => {
      entries.forEach(([kind, record]) => to.objectStore(kind).put(record));
    });
  }

  /** Delete a conversation, its turns and their tokens. */
  async remove(id, turns) {
    await this.#run("readwrite", (from) => {
      from.objectStore("conversations").delete([id]);
      from.objectStore("turns").delete(under(id));
      turns.forEach((turn) => from.objectStore("tokens").delete(under(turn)));
    });
  }
}

/** The keys that begin with `owner`, those after `last`: arrays sort after all else. */
function under(owner, last) {
  return IDBKeyRange.bound(last ?? [owner], [owner, []], last !== undefined);
}

/** What waits to be written, or cannot be. */
export class Memory {
  /** @type {Map<string, Entry>} */
  #entries = new Map();

  get entries() {
    return [...this.#entries.values()];
  }

  /** @param {Entry[]} entries */
  put(entries) {
    entries.forEach((entry) => this.#entries.set(JSON.stringify(keyOf(entry)), entry));
  }

  clear() {
    this.#entries.clear();
  }

  /** Delete a conversation, its turns and their tokens. */
  remove(id, turns) {
    for (const [name, entry] of this.#entries) {
      const owner = keyOf(entry)[1];
      if (owner === id || turns.includes(owner)) {
        this.#entries.delete(name);
      }
    }
  }

  /** Return `records` of the database with those that are here, as `Database.all` does. */
  over(records, kind, owner) {
    const merged = new Map(records.map((one) => [JSON.stringify(keyOf([kind, one])), one]));
    for (const [name, entry] of this.#entries) {
      if (entry[0] === kind && (owner === undefined || keyOf(entry)[1] === owner)) {
        merged.set(name, structuredClone(entry[1]));
      }
    }
    return [...merged.values()];
  }
}

function keyOf([kind, record]) {
  return [kind, ...KEYS[kind].map((part) => record[part])];
}
