/**
 * A reply token by token: each a span, shaded and underlined by what the delta did to it. One can
 * be looked at; who shows what is known of it is told by `onPick`.
 */

import { element } from "./dom.js";
import { change, disclosed, displaced, inWordsOf, level, spoken } from "./token_math.js";
import { TokenStrip } from "./token_strip.js";
import { inWords } from "./weights.js";

const PER_FRAME = 100; // tokens that are drawn in one go
const NAMES = { "-3": "less-3", "-2": "less-2", "-1": "less-1", 1: "more-1", 2: "more-2", 3: "more-3" };

/**
 * @typedef {import("./token_math.js").Reply} Reply
 * @typedef {{index: number, pinned: boolean, view: TokenView}} Pick
 */
export class TokenView {
  #spans = [];
  /** @type {Reply} */
  reply = { deltas: {}, tokens: [], marks: [] };
  #marks = ""; // as they are drawn
  #current = -1; // the one that Tab reaches
  #pinned = -1;
  #column = null; // where up and down began, in pixels
  #due = 0;
  #list = element("div", {
    class: "tokens",
    role: "listbox",
    "aria-label": "Tokens of the reply",
    "aria-orientation": "horizontal",
  });

  /** @param {{onPick?: (pick: ?Pick) => void, legend?: boolean}} options */
  constructor({ onPick = () => {}, legend = true } = {}) {
    this.onPick = onPick;
    this.strip = new TokenStrip({ onGo: (index) => this.go(index, true) });
    this.element = element("div", { class: "token-view" }, this.strip.element, this.#list);
    if (legend) {
      this.element.append(tokenLegend());
    }
    this.#listen();
  }

  /** Show a reply from its beginning. @param {Reply} reply */
  set(reply) {
    cancelAnimationFrame(this.#due);
    this.reply = reply;
    this.#spans = [];
    this.#marks = "";
    this.#current = this.#pinned = -1;
    this.#list.replaceChildren();
    this.append();
  }

  /** Show the tokens and marks that have come since. */
  append() {
    cancelAnimationFrame(this.#due);
    const from = this.#spans.length;
    const tokens = this.reply.tokens.slice(from, from + PER_FRAME);
    const made = document.createDocumentFragment();
    for (const token of tokens) {
      made.append(this.#span(token));
    }
    this.#list.append(made);
    this.#drawMarks();
    if (this.#current < 0 && this.#spans.length) {
      this.#reach(0);
    }
    if (this.#spans.length < this.reply.tokens.length) {
      this.#due = requestAnimationFrame(() => this.append());
    } else {
      this.strip.show(this.reply);
    }
  }

  /** Look at a token: it gets the focus, and stays if it is pinned. */
  go(index, pinned) {
    const span = this.#spans[index];
    if (span) {
      this.#pin(pinned ? index : -1);
      span.focus();
      this.#look(index);
    }
  }

  /** Bring a token into sight. */
  reveal(index) {
    this.#spans[index]?.scrollIntoView({ block: "nearest" });
  }

  /** Let go of the token that is pinned; the focus comes back to it if `focus`. */
  unpin(focus = false) {
    const at = this.#pinned;
    this.#pin(-1);
    if (focus) {
      this.#spans[at < 0 ? this.#current : at]?.focus();
    }
    this.strip.look(-1);
  }

  #span(token) {
    const index = this.#spans.length;
    const nats = change(token);
    const other = displaced(token);
    const names = ["token"];
    if (level(nats)) {
      names.push(`token--${NAMES[level(nats)]}`);
    }
    if (other) {
      names.push("token--moved");
    }
    const first = other ? `, the base's first choice was ${spoken(other.text)}` : "";
    const span = element("span", {
      class: names.join(" "),
      role: "option",
      tabindex: "-1",
      "aria-selected": "false",
      "aria-label": `${spoken(token.text)}, ${inWordsOf(nats)}${first}`,
      "data-index": index,
      text: disclosed(token.text).replace(/\n/gu, "↵\n") || "∅",
    });
    this.#spans.push(span);
    return span;
  }

  /** Put the marks before the tokens that they act on; one may be about the token to come. */
  #drawMarks() {
    const { marks, deltas } = this.reply;
    const shown = marks.filter(({ at }) => at > 0 && at <= this.#spans.length);
    const drawn = JSON.stringify([shown, this.#spans.length === shown.at(-1)?.at]);
    if (drawn === this.#marks) {
      return;
    }
    this.#marks = drawn;
    this.#list.querySelectorAll(".token-mark").forEach((mark) => mark.remove());
    for (const { at, weights } of shown) {
      const mark = element("span", {
        class: "token-mark",
        "aria-hidden": "true",
        text: inWords(weights, deltas),
      });
      this.#list.insertBefore(mark, this.#spans[at] ?? null);
      const span = this.#spans[at];
      if (span && !span.dataset.mark) {
        span.dataset.mark = "";
        const label = span.getAttribute("aria-label");
        span.setAttribute("aria-label", `from here ${inWords(weights, deltas)}: ${label}`);
      }
    }
  }

  #listen() {
    const indexOf = ({ target }) => Number(target.closest?.(".token")?.dataset.index ?? -1);
    this.#list.addEventListener("pointerover", (event) => {
      const index = indexOf(event);
      if (index >= 0 && this.#pinned < 0 && event.pointerType === "mouse") {
        this.#look(index);
      }
    });
    this.#list.addEventListener("click", (event) => {
      const index = indexOf(event);
      if (index >= 0 && getSelection()?.isCollapsed !== false) {
        this.go(index, true);
      }
    });
    this.#list.addEventListener("focusin", (event) => {
      const index = indexOf(event);
      if (index >= 0) {
        this.#reach(index);
        if (event.target.matches(":focus-visible") && this.#pinned < 0) {
          this.#look(index);
        }
      }
    });
    this.#list.addEventListener("keydown", (event) => this.#key(event, indexOf(event)));
  }

  #key(event, at) {
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const { key } = event;
    const last = this.#spans.length - 1;
    const places = {
      ArrowLeft: () => at - 1,
      ArrowRight: () => at + 1,
      ArrowUp: () => this.#onLine(at, -1),
      ArrowDown: () => this.#onLine(at, 1),
      Home: () => 0,
      End: () => last,
    };
    if (key in places) {
      const column = this.#column ?? middle(this.#spans[at]);
      const index = Math.min(last, Math.max(0, places[key]()));
      this.go(index, this.#pinned >= 0);
      this.#column = key === "ArrowUp" || key === "ArrowDown" ? column : null;
    } else if (key === "Enter" || key === " ") {
      this.go(at, true);
    } else if (key === "Escape" && this.#pinned >= 0) {
      this.unpin();
      this.onPick(null);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** The token of the next line above (−1) or below (1) that is nearest to where one was. */
  #onLine(at, step) {
    const column = this.#column ?? middle(this.#spans[at]);
    const top = lineOf(this.#spans[at]);
    let line = null;
    let [best, distance] = [at, Infinity];
    for (let i = at + step; this.#spans[i]; i += step) {
      const its = lineOf(this.#spans[i]);
      if (line === null && Math.abs(its - top) > 4) {
        line = its;
      } else if (line !== null && Math.abs(its - line) > 4) {
        break;
      }
      const away = Math.abs(middle(this.#spans[i]) - column);
      if (line !== null && away < distance) {
        [best, distance] = [i, away];
      }
    }
    return best;
  }

  #reach(index) {
    this.#spans[this.#current]?.setAttribute("tabindex", "-1");
    this.#current = index;
    this.#spans[index].setAttribute("tabindex", "0");
  }

  #pin(index) {
    this.#spans[this.#pinned]?.setAttribute("aria-selected", "false");
    this.#pinned = index;
    this.#spans[index]?.setAttribute("aria-selected", "true");
  }

  #look(index) {
    this.strip.look(index);
    this.onPick({ index, pinned: this.#pinned === index, view: this });
  }
}

/** What the shades, underlines and marks mean. */
export function tokenLegend() {
  const likelier = [
    ["more-1", "twice"],
    ["more-2", "10 ×"],
    ["more-3", "100 × likelier"],
  ];
  const less = [
    ["less-1", "half"],
    ["less-2", "a tenth"],
    ["less-3", "a hundredth"],
  ];
  const sample = ([name, text]) => element("span", { class: `token--${name}`, text });
  return element(
    "p",
    { class: "token-legend" },
    element("span", { text: "The delta made it " }),
    ...likelier.map(sample),
    ...less.map(sample),
    element("span", { class: "token--moved token-legend-moved", text: "another first choice" }),
  );
}

function lineOf(span) {
  return span.getClientRects()[0]?.top ?? 0;
}

function middle(span) {
  const [rect] = span.getClientRects();
  return rect ? rect.left + rect.width / 2 : 0;
}
