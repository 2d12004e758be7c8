/** One column of a comparison: a model or a strength of the delta, and its reply to the prompt. */

import { startDials, weightsOf } from "./dials.js";
import { element } from "./dom.js";
import { Emitter } from "./events.js";
import { Generation } from "./generation.js";
import { renderMarkdown } from "./markdown.js";
import { shown } from "./numbers.js";
import { bodyOf } from "./replies.js";
import { Tree } from "./tree.js";
import { figuresOf, noticeOf } from "./turn_words.js";
import { mainDelta } from "./weights.js";

/**
 * What a column shows: a recipe's emulation with an α, or one model of it alone.
 * @typedef {{recipe: string, only: ?string, alpha: number}} Choice
 */

function choices(app) {
  const several = app.recipes.length > 1;
  return app.models.map(({ id, meta }) => {
    const [recipe, ...part] = id.split(":");
    return [id, (several ? `${recipe} · ` : "") + inShort(part.join(":"), meta?.deltas ?? {})];
  });
}

function inShort(part, deltas) {
  const [side, delta = mainDelta(deltas)] = part.split(":");
  if (side !== "tuned") {
    return side ? "Base" : "Emulated";
  }
  return Object.keys(deltas).length > 1 ? `Small tuned, ${delta}` : "Small tuned";
}

/**
 * Draws itself, and runs its reply when it is told to. Tells "changed" when the person wants
 * something else in it, "ended", "removed" and "adopted".
 */
export class Column extends Emitter {
  #view = null; // of the tokens, if they are shown
  #text = element("div.column-text");
  #prose = element("div"); // of the Markdown, which keeps to itself what is in it
  #state = element("p.column-state.quiet");
  #what = element("select", { "aria-label": "What this column shows" });
  #alpha = element("input", { type: "number", min: 0, step: 0.05, inputmode: "decimal" });
  #strength = element("label.column-alpha", "α ", this.#alpha);
  #adopt = element("button", { text: "Go on with this one", hidden: true });

  /**
   * @param {import("./app.js").App} app
   * @param {Choice} choice
   */
  constructor(app, choice) {
    super();
    this.app = app;
    this.choice = choice;
    /** @type {any} */
    this.generation = null;
    this.isWaiting = false; // for its turn
    this.isKept = false;
    const remove = element("button.plain.icon", {
      text: "×",
      "aria-label": "Remove this column",
      onclick: () => this.emit("removed"),
    });
    const head = element("header.row", this.#what, this.#strength, remove);
    const parts = [head, this.#state, this.#text, this.#adopt];
    this.element = element("section.column-reply", ...parts);
    this.#what.addEventListener("change", () => this.#chosen());
    this.#alpha.addEventListener("change", () => this.#chosen());
    this.#adopt.addEventListener("click", () => this.adopt());
    // Where columns snap, what has the focus would else be scrolled out of sight again.
    this.element.addEventListener("focusin", ({ target }) => {
      if (target.matches(":focus-visible")) {
        this.reveal();
      } // and what is pressed by a pointer stays below it
    });
    this.drawHead();
    this.draw();
  }

  /** Bring it into its row's sight, sideways: what is above the row stays there. */
  reveal() {
    const row = this.element.parentElement;
    const [own, all] = [this.element, row].map((one) => one.getBoundingClientRect());
    const toRight = Math.max(own.right - all.right, 0);
    row.scrollLeft += own.left < all.left ? own.left - all.left : toRight;
  }

  get isRunning() {
    return this.generation?.turn.state === "streaming";
  }

  /** The weights that it stands for: the dials' mix, with its own α. */
  get weights() {
    const { recipe, only, alpha } = this.choice;
    if (only) {
      return { only };
    }
    const { mix } = this.app.dials;
    return weightsOf({ ...startDials(), alpha, mix }, this.app.deltasOf(recipe));
  }

  #chosen() {
    const [recipe, ...part] = this.#what.value.split(":");
    const alpha = this.#alpha.valueAsNumber >= 0 ? this.#alpha.valueAsNumber : this.choice.alpha;
    this.choice = { recipe, only: part.join(":") || null, alpha };
    this.drawHead();
    this.emit("changed");
  }

  /** Draw what it shows; the models may have become known. */
  drawHead() {
    const { recipe, only, alpha } = this.choice;
    this.#what.replaceChildren(...choices(this.app).map(([id, text]) => new Option(text, id)));
    this.#what.value = only ? `${recipe}:${only}` : recipe;
    this.#strength.hidden = only !== null;
    this.#alpha.value = shown(alpha);
    const name = this.#what.selectedOptions[0]?.text ?? "";
    this.element.setAttribute("aria-label", only ? name : `${name}, α ${shown(alpha)}`);
  }

  /**
   * Ask for the reply.
   * @param {string} prompt
   * @param {Object} settings  the seed is among them
   */
  run(prompt, settings) {
    const { app, choice, weights } = this;
    const model = choice.recipe;
    const body = bodyOf({ model, weights, settings, deltas: app.deltasOf(model) });
    const dials = { ...startDials(), mix: app.dials.mix, ...dialsOf(choice) };
    const tree = Tree.begun({ model, settings: { ...settings, seed: app.settings.seed }, dials });
    const asked = tree.add(null, { role: "user", text: prompt });
    const turn = tree.add(asked.id, {
      ...{ role: "assistant", model, body: { system: settings.system, ...body } },
      marks: [{ at: 0, offset: 0, weights }],
    });
    this.isKept = false;
    this.isWaiting = false;
    const generation = new Generation(app, tree, turn, { keep: false });
    this.generation = generation;
    this.show();
    generation.on("text tokens progress", () => generation === this.generation && this.draw());
    generation.run({ ...body, messages: tree.messages(asked, settings.system) }).then(() => {
      if (generation === this.generation) {
        this.draw();
      }
      this.emit("ended");
    });
    this.draw();
  }

  /** Wait for a turn; what was there is gone. */
  wait() {
    this.stop();
    this.generation = null;
    this.isWaiting = true;
    this.show();
    this.draw();
  }

  /** End its reply; what has come stays. */
  stop() {
    this.isWaiting = false;
    if (this.isRunning) {
      this.generation.stop();
    }
    this.draw();
  }

  /** Keep prompt and reply as a conversation, and open it. */
  async adopt() {
    const { app } = this;
    const { tree, tokens } = this.generation;
    if (!this.isKept) {
      this.isKept = true;
      for (const turn of tree.path()) {
        turn.n_tokens = turn.role === "assistant" ? tokens.length : undefined;
        await app.store.saveTurn(turn);
      }
      await app.store.appendTokens(tree.about.leaf, 0, tokens);
      await app.keep(tree);
    }
    await app.open(tree.about.id);
    this.emit("adopted");
  }

  /** Begin to show the reply anew, as the page's view is. */
  show() {
    this.#view = null;
    this.#prose = element("div");
    this.#text.replaceChildren(this.#prose);
    if (this.app.view === "tokens" && this.generation) {
      const { turn, tokens } = this.generation;
      // What is asked for from a token on needs a conversation first.
      const more = { turn, adopt: () => this.adopt() };
      const pick = (one) => this.app.emit("pick", one && { ...one, ...more });
      this.#view = new this.app.tokens.TokenView({ onPick: pick });
      this.#view.set(this.app.tokens.replyOf(this.app, turn, tokens));
      this.#text.replaceChildren(this.#view.element);
    }
    this.draw();
  }

  draw() {
    const { generation } = this;
    this.#text.setAttribute("aria-busy", String(this.isRunning));
    if (this.#view) {
      this.#view.append();
    } else if (generation) {
      renderMarkdown(this.#prose, generation.turn.text, { streaming: this.isRunning });
    }
    const problem = generation?.turn.problem;
    this.#state.textContent = this.#words();
    this.#state.classList.toggle("is-bad", Boolean(problem));
    this.#adopt.hidden = !generation || this.isRunning || !generation.turn.text;
  }

  #words() {
    const { turn, progress } = this.generation ?? {};
    if (!turn) {
      return this.isWaiting ? "Waits for the others" : "";
    }
    if (progress) {
      return `Reading the prompt: ${progress.processed} of ${progress.total} tokens`;
    }
    const seedless = { ...turn, body: {}, n_tokens: this.generation.tokens.length };
    return [noticeOf(turn), figuresOf(seedless)].filter(Boolean).join(" ") || "Begins";
  }
}

function dialsOf({ only, alpha }) {
  return only === "base" ? { alpha: 0 } : only ? { only } : { alpha };
}
