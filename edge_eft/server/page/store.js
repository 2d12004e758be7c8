/** Conversations in the browser's own storage. */

/** @returns {Promise<Store>} */
export async function openStore() {
  return new Store();
}

export class Store extends EventTarget {
  async load(id) {
    return null;
  }

  async saveConversation(about) {}
}
