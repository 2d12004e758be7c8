/** The conversation as it is shown: its turns, the end that is followed, what is told aloud. */

import { element, place } from "./dom.js";
import { askAgain, emptyState } from "./empty_state.js";
import { TurnView } from "./turn_view.js";

const NEAR = 48; // pixels from the end that count as at the end
const SLICE = 12; // ms of drawing in one go

/**
 * @param {import("./app.js").App} app
 * @param {HTMLElement} root
 */
export function mountTurns(app, root) {
  const shown = new Conversation(app, root);
  app.on("turns models view", () => shown.draw());
  app.on("conversation", () => shown.follow[app.tree.turns.size ? "toEnd" : "toStart"]());
  app.on("pick", (pick) => pick?.asked && shown.follow.rest());
  app.on("generation", (generation) => {
    if (generation?.tree !== app.tree) {
      return;
    }
    const { id } = generation.turn;
    if (app.generations.has(id)) {
      attend(app, generation, () => shown.views.get(id));
      shown.follow.toEnd();
    }
    shown.views.get(id)?.begin();
  });
  shown.draw();
}

class Conversation {
  #waiting = []; // views to be drawn, the next one last

  constructor(app, root) {
    this.app = app;
    this.list = element("div");
    this.empty = emptyState(app);
    const named = { "aria-label": "To the end", title: "To the end", hidden: true };
    const toEnd = element("button.icon", named, "↓");
    document.getElementById("message").after(toEnd); // where it covers no text
    root.append(this.empty, this.list, askAgain(app));
    this.follow = new Follow(root, this.list, toEnd);
    /** @type {Map<string, TurnView>} */
    this.views = new Map();
  }

  draw() {
    const { app, list } = this;
    const path = app.tree.path();
    const viewOf = (turn) => {
      const view = this.views.get(turn.id);
      return view?.turn === turn ? view : new TurnView(app, app.tree, turn);
    };
    this.views = new Map(path.map((turn) => [turn.id, viewOf(turn)]));
    const views = [...this.views.values()];
    const hadFocus = list.contains(document.activeElement);
    const shown = views.map((view) => view.element);
    place(list, shown);
    this.empty.hidden = path.length > 0;
    this.#drawLegend(path);
    this.#waiting = views.filter((view) => !view.isFresh);
    this.#drawSome();
    if (hadFocus && document.activeElement === document.body) {
      list.lastElementChild?.focus({ preventScroll: true });
    }
  }

  /** What the shades mean; it comes with what shows tokens. */
  #drawLegend(path) {
    const isShown = this.app.view === "tokens" && path.some(({ role }) => role === "assistant");
    if (isShown && !this.legend) {
      this.legend = this.app.tokens.tokenLegend();
      this.list.after(this.legend);
    }
    this.legend?.toggleAttribute("hidden", !isShown);
  }

  /** Draw from the end, where one looks first; a long conversation in several goes. */
  #drawSome() {
    const begun = performance.now();
    while (this.#waiting.length && performance.now() - begun < SLICE) {
      this.#waiting.pop().draw();
    }
    if (this.#waiting.length) {
      setTimeout(() => this.#drawSome());
    }
  }
}

/** Show a reply as it comes, and tell it aloud by sentences. */
function attend(app, generation, viewOf) {
  const { turn } = generation;
  const announce = (text) => app.tree === generation.tree && app.announce(text);
  const teller = new Teller(announce, turn.text);
  const drawText = () => viewOf()?.drawText();
  generation.on("text", () => {
    drawText();
    teller.tell(turn.text, false);
  });
  generation.on("tokens", () => app.view === "tokens" && drawText());
  generation.on("mark", drawText);
  generation.on("end", () => teller.tell(turn.text, true));
}

/** Keeps the end in sight as it grows, while the reader is there. */
class Follow {
  #isFollowing = true;
  #top = 0; // where the end was

  constructor(root, list, button) {
    [this.root, this.list, this.button] = [root, list, button];
    root.addEventListener("scroll", () => this.#look(), { passive: true });
    button.addEventListener("click", () => {
      this.toEnd();
      list.lastElementChild.focus({ preventScroll: true });
    });
    const sizes = new ResizeObserver(() => (this.#isFollowing ? this.toEnd() : this.#look()));
    sizes.observe(list);
    sizes.observe(root);
  }

  toEnd() {
    this.#isFollowing = true;
    this.root.scrollTop = this.root.scrollHeight;
    this.#top = this.root.scrollTop;
    this.button.hidden = true;
  }

  /** Follow no longer: there is something to look at. */
  rest() {
    this.#isFollowing = false;
  }

  toStart() {
    this.root.scrollTop = 0;
    this.#look();
  }

  #look() {
    const { scrollTop, scrollHeight, clientHeight } = this.root;
    const isNear = scrollHeight - scrollTop - clientHeight < NEAR;
    // What was said meanwhile moves the end away too; the reader leaves it by going up.
    this.#isFollowing = isNear || (this.#isFollowing && scrollTop >= this.#top);
    this.button.hidden = this.#isFollowing || !this.list.firstChild;
  }
}

/** Tells a text aloud: whole sentences, as they are finished. */
class Teller {
  #told;

  constructor(announce, text) {
    this.announce = announce;
    this.#told = text.length;
  }

  tell(text, isLast) {
    const rest = text.slice(this.#told);
    const ends = [...rest.matchAll(/[.!?…](?=["'”’)\]*_]*\s)|[。！？\n]/gu)];
    const end = isLast ? rest.length : (ends.pop()?.index ?? -1) + 1;
    const sentences = rest
      .slice(0, end)
      .replace(/[*_`#>|]+/gu, " ")
      .trim();
    if (sentences) {
      this.#told += end;
      this.announce(sentences);
    }
  }
}
