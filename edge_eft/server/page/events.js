/** Things that tell what happens to them. */

export class Emitter extends EventTarget {
  /** Tell those who listen. */
  emit(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** Call a function with the detail when something happens: `on("turns view", draw)`. */
  on(names, listener) {
    for (const name of names.split(" ")) {
      this.addEventListener(name, (/** @type {any} */ { detail }) => listener(detail));
    }
  }
}
