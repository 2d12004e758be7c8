/**
 * A reply token by token: each a span, shaded and underlined by what the delta did to it. One can
 * be looked at; who shows what is known of it is told by `onPick`.
 */

import { element } from "./dom.js";
import { change, disclosed, displaced, inWordsOf, level, spoken } from "./token_math.js";
import { TokenStrip } from "./token_strip.js";
import { inWords } from "./weights.js";

const PER_FRAME = 100; // tokens that are drawn in one go

/**
 * @typedef {import("./token_math.js").Reply} Reply
 *
 * A token is looked at: with the pointer in passing, or because it was asked for.
 * @typedef {{index: number, pinned: boolean, asked: boolean, view: TokenView}} Pick
 */
export class TokenView {
  #spans = [];
  /** @type {Reply} */
  reply = { deltas: {}, tokens: [], marks: [] };
  #marks = ""; // as they are drawn
  #current = -1; // the one that Tab reaches
  #pinned = -1;
  #column = null; // where up and down began, in pixels
  #focuses = false; // by itself, and not the person
  #due = 0;
  #list = element("div.tokens", {
    role: "listbox",
    "aria-label": "Tokens of the reply",
    "aria-orientation": "horizontal",
  });

  /** @param {{onPick?: (pick: ?Pick) => void}} options */
  constructor({ onPick = () => {} } = {}) {
    this.onPick = onPick;
    this.strip = new TokenStrip((index) => this.go(index, true));
    this.element = element("div.token-view", this.strip.element, this.#list);
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
      this.#focus(index);
      this.#look(index, true);
    }
  }

  reveal(index) {
    this.#spans[index]?.scrollIntoView({ block: "nearest" });
  }

  /** Let go of the token that is pinned; the focus comes back to where it was if `focus`. */
  unpin(focus = false) {
    this.#pin(-1);
    this.strip.look(-1);
    if (focus && this.#current >= 0) {
      this.#focus(this.#current);
    }
  }

  /** Focus a token, which by itself is not looking at it. */
  #focus(index) {
    this.#focuses = true;
    this.#reach(index);
    this.#spans[index].focus();
    this.#focuses = false;
  }

  #span(token) {
    const moved = displaced(token) ? " token--moved" : "";
    const span = element("span", {
      class: `token ${shade(level(change(token)))}${moved}`,
      role: "option",
      tabindex: -1,
      "aria-selected": "false",
      "aria-label": labelOf(token),
      "data-index": this.#spans.length,
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
    const label = (span, before) => {
      const token = this.reply.tokens[span.dataset.index];
      span.setAttribute("aria-label", before + labelOf(token));
    };
    for (const mark of this.#list.querySelectorAll(".token-mark")) {
      if (mark.nextElementSibling) {
        label(mark.nextElementSibling, "");
      }
      mark.remove();
    }
    for (const { at, weights } of shown) {
      const text = inWords(weights, deltas);
      const span = this.#spans[at] ?? null;
      const mark = element("span.token-mark.pill", { "aria-hidden": "true", text });
      this.#list.insertBefore(mark, span);
      if (span) {
        label(span, `from here ${text}: `);
      }
    }
  }

  #listen() {
    const indexOf = ({ target }) => Number(target.closest?.(".token")?.dataset.index ?? -1);
    this.#list.addEventListener("pointerover", (event) => {
      const index = indexOf(event);
      if (index >= 0 && this.#pinned < 0 && event.pointerType === "mouse") {
        this.#look(index, false);
      }
    });
    this.#list.addEventListener("click", (event) => {
      const index = indexOf(event);
      if (index >= 0 && getSelection()?.isCollapsed !== false) {
        this.#column = null;
        this.go(index, true);
      }
    });
    this.#list.addEventListener("focusin", (event) => {
      const index = indexOf(event);
      if (index >= 0 && !this.#focuses && event.target.matches(":focus-visible")) {
        this.#reach(index);
        this.#look(index, true);
      }
    });
    this.#list.addEventListener("keydown", (event) => this.#key(event, indexOf(event)));
  }

  #key(event, at) {
    const { key } = event;
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const places = {
      ArrowLeft: () => at - 1,
      ArrowRight: () => at + 1,
      ArrowUp: () => this.#onLine(at, -1),
      ArrowDown: () => this.#onLine(at, 1),
      Home: () => 0,
      End: () => this.#spans.length - 1,
    };
    if (key in places) {
      const index = Math.min(this.#spans.length - 1, Math.max(0, places[key]()));
      this.go(index, this.#pinned >= 0);
    } else if (key === "Enter" || key === " ") {
      this.go(at, true);
    } else if (key === "Escape" && this.#pinned >= 0) {
      this.unpin();
      this.onPick(null);
    } else {
      return;
    }
    this.#column = key === "ArrowUp" || key === "ArrowDown" ? this.#column : null;
    event.preventDefault();
    event.stopPropagation();
  }

  /** The token of the next line above (−1) or below (1) that is nearest to where one began. */
  #onLine(at, step) {
    const place = (i) => this.#spans[i].getClientRects()[0] ?? new DOMRect();
    const middle = (i) => place(i).left + place(i).width / 2;
    const column = (this.#column ??= middle(at));
    let line = place(at).top;
    let [best, distance] = [at, Infinity];
    for (let i = at + step; this.#spans[i]; i += step) {
      if (Math.abs(place(i).top - line) > 4) {
        if (best !== at) {
          break;
        }
        line = place(i).top;
        distance = Infinity;
      } else if (best === at) {
        continue; // still on the line where one is
      }
      const away = Math.abs(middle(i) - column);
      if (away < distance) {
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

  #look(index, asked) {
    this.strip.look(index);
    this.onPick({ index, pinned: this.#pinned === index, asked, view: this });
  }
}

/** What is read out of a token. */
function labelOf(token) {
  const other = displaced(token);
  const first = other ? `, the base's first choice was ${spoken(other.text)}` : "";
  return `${spoken(token.text)}, ${inWordsOf(change(token))}${first}`;
}

export function tokenLegend() {
  const steps = { 1: "twice", 2: "10 ×", 3: "100 × likelier", "-1": "half", "-2": "a tenth" };
  const all = Object.entries({ ...steps, "-3": "a hundredth" });
  const shades = all.map(([step, text]) => element("span", { class: shade(Number(step)), text }));
  const moved = element("span.token--moved", "another first choice");
  return element("p.token-legend.row.quiet", "The delta made it", ...shades, moved);
}

function shade(step) {
  return step ? `token--${step > 0 ? "more" : "less"}-${Math.abs(step)}` : "";
}
