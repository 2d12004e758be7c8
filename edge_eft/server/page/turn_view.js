/** One turn of the conversation: what was said, what became of it, and what can be done with it. */

import { copying, element } from "./dom.js";
import { renderMarkdown } from "./markdown.js";
import { part } from "./lazy.js";
import { regenerate, tokensOf } from "./replies.js";
import { canGoOn, figuresOf, isFull, noticeOf, originOf, startOf } from "./turn_words.js";
import { inWords } from "./weights.js";

export class TurnView {
  #drawn = ""; // what of
  #tokens = null; // the view of them, where they are shown
  #text = element("div"); // where Markdown is rendered
  #isEdited = false;

  /**
   * @param {import("./app.js").App} app
   * @param {import("./tree.js").Tree} tree
   * @param {import("./tree.js").Turn} turn
   */
  constructor(app, tree, turn) {
    [this.app, this.tree, this.turn] = [app, tree, turn];
    this.isReply = turn.role === "assistant";
    this.head = element("header.turn-head.row.quiet");
    this.thoughts = element("div.turn-thoughts");
    const summary = element("summary", "Reasoning");
    this.reasoning = element("details.turn-reasoning", summary, this.thoughts);
    this.body = element("div.turn-body");
    this.notice = element("p.turn-notice", { hidden: true });
    this.foot = element("footer.turn-foot.row.quiet");
    const name = this.isReply ? `Reply of ${turn.model ?? "a model"}` : "You";
    this.element = element(
      `article.turn.turn-${turn.role}`,
      { tabindex: -1, id: `turn-${turn.id}`, "aria-label": name },
      ...[this.head, this.reasoning, this.body, this.notice, this.foot],
    );
  }

  get generation() {
    return this.app.generations.get(this.turn.id);
  }

  get isFresh() {
    return this.#drawn === this.#state();
  }

  #state() {
    const { turn, tree, app } = this;
    const { text, reasoning, state, problem, marks } = turn;
    const others = tree.siblings(turn);
    const place = [others.indexOf(turn), others.length, app.models.length];
    const isComing = Boolean(this.generation); // its end is written after it came
    const says = [text.length, reasoning?.length, state, problem, marks?.length, isComing];
    return JSON.stringify([says, place, this.isReply && app.view]);
  }

  draw() {
    if (this.#isEdited || this.isFresh) {
      return;
    }
    this.#drawn = this.#state();
    const hadFocus = this.element.contains(document.activeElement);
    const isComing = Boolean(this.generation);
    this.element.classList.toggle("is-coming", isComing);
    this.element.setAttribute("aria-busy", String(isComing));
    this.#drawHead();
    this.#drawNotice();
    this.#drawFoot();
    this.drawText();
    if (hadFocus && document.activeElement === document.body) {
      this.element.focus({ preventScroll: true }); // the button that was pressed is gone
    }
  }

  /** A reply begins or goes on, and its tokens are others; or it has ended, and they stay. */
  begin() {
    if (this.generation) {
      this.#tokens = null;
    }
    this.draw();
  }

  async edit() {
    const { app, turn, body } = this;
    const editing = await part(() => import("./turn_editor.js"));
    if (!editing) {
      return;
    }
    const end = () => {
      this.#isEdited = false;
      this.#drawn = "";
      this.#tokens = null;
      this.element.classList.remove("is-edited");
      this.draw();
      this.element.focus({ preventScroll: true });
    };
    this.#isEdited = true;
    this.element.classList.add("is-edited");
    this.foot.replaceChildren();
    const editor = editing.turnEditor(app, turn, end);
    body.replaceChildren(editor);
    editor.querySelector("textarea").focus();
  }

  async #goOn() {
    const branches = await part(() => import("./branches.js"));
    branches?.goOn(this.app, this.turn);
  }

  drawText() {
    const { turn, body } = this;
    const isComing = Boolean(this.generation);
    this.reasoning.hidden = !turn.reasoning;
    if (turn.reasoning && this.thoughts.textContent !== turn.reasoning) {
      this.thoughts.textContent = turn.reasoning;
    }
    if (!this.isReply) {
      body.textContent = turn.text;
    } else if (this.#showsTokens) {
      this.#drawTokens();
    } else {
      this.#tokens = null;
      if (this.#text.parentNode !== body) {
        this.#text = element("div.turn-text");
        body.replaceChildren(this.#text);
      }
      renderMarkdown(this.#text, turn.text, { marks: this.#marks(), streaming: isComing });
    }
  }

  get #hasTokens() {
    return this.turn.n_tokens > 0 || this.generation?.tokens.length > 0;
  }

  get #showsTokens() {
    return this.app.view === "tokens" && this.#hasTokens;
  }

  /** Marks as a text shows them; what it began with is in its head. */
  #marks() {
    const marks = (this.turn.marks ?? []).filter(({ at }) => at > 0);
    return marks.map(({ offset, weights }) => ({ offset, label: inWords(weights, this.#deltas) }));
  }

  get #deltas() {
    return this.app.deltasOf(this.turn.model);
  }

  async #drawTokens() {
    if (this.#tokens) {
      this.#tokens.append();
      return;
    }
    const { app, turn } = this;
    const onPick = (pick) => app.emit("pick", pick && { ...pick, turn });
    const view = new app.tokens.TokenView({ onPick });
    this.#tokens = view;
    const tokens = await tokensOf(app, turn);
    if (this.#tokens === view) {
      this.body.replaceChildren(view.element);
      view.set(app.tokens.replyOf(app, turn, tokens));
    }
  }

  #drawHead() {
    if (!this.isReply) {
      return;
    }
    const { turn } = this;
    const parts = [element("span.turn-name", { text: turn.model ?? "assistant" })];
    if (turn.marks?.some(({ at }) => at === 0)) {
      parts.push(element("span.pill", { text: startOf(turn, this.#deltas) }));
    }
    const origin = originOf(turn, this.app.view === "tokens" && !this.#hasTokens);
    if (origin && !this.generation) {
      parts.push(element("span.turn-origin", origin));
    }
    this.head.replaceChildren(...parts);
  }

  #drawNotice() {
    const { turn } = this;
    const isElsewhere = turn.state === "streaming";
    const says = isElsewhere ? "This reply is being written in another tab." : noticeOf(turn);
    const text = this.isReply && !this.generation ? says : "";
    this.notice.hidden = !text;
    this.notice.classList.toggle("is-bad", turn.state === "failed" || turn.state === "cut");
    this.notice.replaceChildren(text);
    if (text && isFull(turn)) {
      this.notice.append(
        " ",
        this.#button("New conversation", () => this.app.open(null)),
      );
    }
    if (text && canGoOn(turn)) {
      const does = turn.text || turn.reasoning ? "Continue" : "Try again";
      this.notice.append(
        " ",
        this.#button(does, () => this.#goOn()),
      );
    }
  }

  #drawFoot() {
    const { app, turn } = this;
    const parts = [this.#variants()];
    if (!this.generation) {
      parts.push(
        this.#copyButton(),
        this.#button("Edit", () => this.edit()),
      );
      if (this.isReply && turn.parent) {
        parts.push(this.#button("Regenerate", () => regenerate(app, turn)));
      }
      if (this.isReply) {
        parts.push(element("span.turn-figures", { text: figuresOf(turn) }));
      }
    }
    this.foot.replaceChildren(...parts.filter((part) => part !== null));
  }

  #button(text, onclick, options = {}) {
    return element("button.plain.turn-button", { onclick, ...options }, text);
  }

  #copyButton() {
    const button = element("button.plain.turn-button", "Copy");
    const announce = (said) => this.app.announce(said);
    copying(button, () => this.turn.text.trim(), "Copy failed", announce);
    return button;
  }

  /** ‹ 2 / 3 ›: the turns that stand in this place. */
  #variants() {
    const { tree, turn } = this;
    const all = tree.siblings(turn);
    const here = all.indexOf(turn);
    if (all.length < 2) {
      return null;
    }
    const step = (by, sign, name) => {
      const about = { "aria-label": name, "data-step": name, disabled: !all[here + by] };
      return this.#button(sign, () => this.#showVariant(all[here + by], name), about);
    };
    return element(
      "span.turn-variants",
      { role: "group", "aria-label": "Versions" },
      step(-1, "‹", "Previous version"),
      element("span", `${here + 1} / ${all.length}`),
      step(1, "›", "Next version"),
    );
  }

  #showVariant(turn, name) {
    const { app, tree } = this;
    tree.show(turn);
    app.keep(tree);
    app.emit("turns");
    const shown = document.getElementById(`turn-${turn.id}`);
    const same = shown?.querySelector(`[data-step="${name}"]:not(:disabled)`);
    (same ?? shown?.querySelector(".turn-variants button:not(:disabled)"))?.focus();
  }
}
