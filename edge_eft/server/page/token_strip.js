/** A whole reply at a glance: how far the delta acted, by position. */

import { element } from "./dom.js";
import { change, displaced, spoken } from "./token_math.js";

const FULL = Math.log(100); // the change of a bar of full height
const SOME = Math.log(2);
const SOON = 30; // ms; not in the frame that lays the text out, which is long enough
const WIDEST = 10; // pixels of a token

/** @typedef {import("./token_math.js").Reply} Reply */
export class TokenStrip {
  #reply = null;
  #values = []; // of each token: its change, and whether the first choice is another
  #looked = -1;
  #due = 0;

  /** @param {(index: number) => void} onGo  what a click on a token's place does */
  constructor(onGo) {
    this.element = element("canvas.token-strip", { role: "img", hidden: true });
    this.element.addEventListener("click", ({ offsetX }) => {
      onGo(Math.min(this.#values.length - 1, Math.floor(offsetX / this.#step)));
    });
    new ResizeObserver(() => this.#soon()).observe(this.element);
    onOtherScheme(this);
  }

  /** Show a reply, or what has come of it since. @param {Reply} reply */
  show(reply) {
    if (reply !== this.#reply || reply.tokens.length < this.#values.length) {
      this.#values = [];
      this.#looked = -1;
    }
    this.#reply = reply;
    for (const token of reply.tokens.slice(this.#values.length)) {
      this.#values.push([change(token), displaced(token) !== null]);
    }
    this.element.hidden = !this.#values.length;
    this.element.setAttribute("aria-label", this.#inWords());
    this.#soon();
  }

  /** Mark the token that is looked at; −1: none. */
  look(index) {
    this.#looked = index;
    this.#soon();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !this.#reply) {
      return;
    }
    const scale = devicePixelRatio || 1;
    this.element.width = Math.round(width * scale);
    this.element.height = Math.round(height * scale);
    const pen = this.element.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(this.element);
    const fill = (name, ...box) => {
      pen.fillStyle = style.getPropertyValue(`--${name}`);
      pen.fillRect(...box);
    };
    this.#drawBars(fill, height);
    for (const { at } of this.#reply.marks.filter((mark) => mark.at > 0)) {
      fill("ink-2", Math.round(at * this.#step), 0, 1, height);
    }
    if (this.#looked >= 0) {
      pen.strokeStyle = style.getPropertyValue("--ink");
      pen.strokeRect(this.#looked * this.#step, 0.5, Math.max(this.#step, 4), height - 1);
    }
  }

  #drawBars(fill, height) {
    const step = this.#step;
    const middle = Math.round(height / 2) + 2; // above are the dots of other first choices
    const reach = height - middle;
    fill("line-strong", 0, middle, step * this.#values.length, 1);
    const wide = Math.max(1, step - (step > 3));
    this.#values.forEach(([nats, moved], i) => {
      const high = reach * Math.min(1, Math.abs(nats) / FULL);
      if (high >= 0.5) {
        fill(nats > 0 ? "more" : "less", i * step, nats > 0 ? middle - high : middle, wide, high);
      }
      if (moved) {
        fill("accent", i * step + wide / 2 - 1.5, 1, 3, 3);
      }
    });
  }

  get #step() {
    return Math.min(WIDEST, this.element.clientWidth / Math.max(1, this.#values.length));
  }

  #soon() {
    this.#due ||= setTimeout(() => {
      this.#due = 0;
      this.draw();
    }, SOON);
  }

  #inWords() {
    const sizes = this.#values.map(([nats]) => Math.abs(nats));
    const acted = sizes.filter((size) => size >= SOME).length;
    const moved = this.#values.filter(([, other]) => other).length;
    const most = sizes.reduce((best, size, i) => (size > sizes[best] ? i : best), 0);
    const word = this.#reply.tokens[most];
    const where = acted ? `; most at token ${most + 1}, ${spoken(word.text)}` : "";
    return (
      `How far the delta acted: ${acted} of ${sizes.length} tokens at least twice or half as ` +
      `likely, the first choice another at ${moved}${where}.`
    );
  }
}

/** Draw a strip again when the colours change, for as long as it is there. */
function onOtherScheme(strip) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const held = new WeakRef(strip);
  const changed = () => {
    const there = held.deref();
    there ? there.draw() : dark.removeEventListener("change", changed);
  };
  dark.addEventListener("change", changed);
}
