/** A whole reply at a glance: how far the delta acted, by position. */

import { element } from "./dom.js";
import { change, displaced, spoken } from "./token_math.js";

const FULL = Math.log(100); // the change of a bar of full height
const WIDEST = 10; // pixels of a bar
const SOME = Math.log(2);

/** @typedef {import("./token_math.js").Reply} Reply */
export class TokenStrip {
  #reply = null;
  #values = []; // change of each token, and whether the first choice is another
  #looked = -1;
  #due = 0;

  /** @param {{onGo: (index: number) => void}} options  what a click on a token's place does */
  constructor({ onGo }) {
    this.canvas = element("canvas", { class: "token-strip", role: "img", hidden: true });
    this.element = this.canvas;
    this.canvas.addEventListener("click", (event) => {
      const at = Math.floor(event.offsetX / this.#width());
      onGo(Math.max(0, Math.min(this.#values.length - 1, at)));
    });
    new ResizeObserver(() => this.#soon()).observe(this.canvas);
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
    this.canvas.hidden = !this.#values.length;
    this.canvas.setAttribute("aria-label", this.#inWords());
    this.#soon();
  }

  /** Mark the token that is looked at; −1: none. */
  look(index) {
    this.#looked = index;
    this.#soon();
  }

  /** Draw it again, as in other colours. */
  draw() {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !this.#reply) {
      return;
    }
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.#drawBars(pen, height, colour);
    this.#drawMarks(pen, height, colour);
  }

  #drawBars(pen, height, colour) {
    const step = this.#width();
    const middle = Math.round(height / 2) + 2; // the dots are above
    const reach = height - middle - 1;
    pen.fillStyle = colour("line-strong");
    pen.fillRect(0, middle - 0.5, step * this.#values.length, 1);
    const drawn = new Map(); // column of pixels → its bar, where tokens are narrower than a pixel
    this.#values.forEach(([nats, moved], i) => {
      const left = step >= 1 ? i * step : Math.floor(i * step);
      const bar = drawn.get(left) ?? { more: 0, less: 0, moved: false };
      bar.more = Math.max(bar.more, nats);
      bar.less = Math.min(bar.less, nats);
      bar.moved ||= moved;
      drawn.set(left, bar);
    });
    const gap = step >= 4 ? 1 : 0;
    const wide = Math.max(1, step - gap);
    for (const [left, { more, less, moved }] of drawn) {
      const [up, down] = [more, -less].map((nats) => reach * Math.min(1, nats / FULL));
      pen.fillStyle = colour("more");
      pen.fillRect(left, middle - up, wide, up);
      pen.fillStyle = colour("less");
      pen.fillRect(left, middle, wide, down);
      if (moved) {
        pen.fillStyle = colour("accent");
        pen.beginPath();
        pen.arc(left + wide / 2, 2.5, 2, 0, 2 * Math.PI);
        pen.fill();
      }
    }
  }

  #drawMarks(pen, height, colour) {
    const step = this.#width();
    pen.strokeStyle = colour("ink-2");
    pen.setLineDash([3, 2]);
    for (const { at } of this.#reply.marks.filter((mark) => mark.at > 0)) {
      pen.beginPath();
      pen.moveTo(Math.round(at * step) + 0.5, 0);
      pen.lineTo(Math.round(at * step) + 0.5, height);
      pen.stroke();
    }
    pen.setLineDash([]);
    if (this.#looked >= 0) {
      pen.strokeStyle = colour("ink");
      pen.lineWidth = 1.5;
      const wide = Math.max(step, 4);
      pen.strokeRect(this.#looked * step - (wide - step) / 2, 0.75, wide, height - 1.5);
    }
  }

  /** Width of a token's place. */
  #width() {
    return Math.min(WIDEST, this.canvas.clientWidth / Math.max(1, this.#values.length));
  }

  #soon() {
    cancelAnimationFrame(this.#due);
    this.#due = requestAnimationFrame(() => this.draw());
  }

  #inWords() {
    const n = this.#values.length;
    const acted = this.#values.filter(([nats]) => Math.abs(nats) >= SOME).length;
    const moved = this.#values.filter(([, other]) => other).length;
    const most = this.#values.reduce(
      (best, [nats], i) => (Math.abs(nats) > Math.abs(this.#values[best][0]) ? i : best),
      0,
    );
    const where = acted
      ? `; most at token ${most + 1}, ${spoken(this.#reply.tokens[most].text)}`
      : "";
    return (
      `How far the delta acted: ${acted} of ${n} tokens at least twice or half as likely, ` +
      `the first choice another at ${moved}${where}.`
    );
  }
}

/** Draw a strip again when the colours change, for as long as it is there. */
function onOtherScheme(strip) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const held = new WeakRef(strip);
  const changed = () => {
    const there = held.deref();
    if (there) {
      there.draw();
    } else {
      dark.removeEventListener("change", changed);
    }
  };
  dark.addEventListener("change", changed);
}
