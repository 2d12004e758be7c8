/** One prompt under several models and strengths of the delta: side by side, by the same seed. */

import { Column } from "./column.js";
import { element } from "./dom.js";
import { Emitter } from "./events.js";
import { entering, submitting } from "./field.js";
import { drawnSeed } from "./replies.js";

const AT_ONCE = 4; // the server's slots, as it has them if nobody says otherwise
const MORE = [0.5, 1.5, 0.25, 0.75, 2]; // α of columns that are added: one that is not there

/**
 * Draw the comparison.
 * @param {import("./app.js").App} app
 * @param {HTMLElement} root
 * @returns {() => void}  shows it in the conversation's place, and takes it away again
 */
export function mountCompare(app, root) {
  const button = document.getElementById("open-compare");
  const others = ["turns", "composer", "dials"].map((id) => document.getElementById(id));
  const compare = new Compare(app);
  root.replaceChildren(compare.element);
  root.setAttribute("aria-label", "Compare");
  const show = (open) => {
    if (open === !root.hidden) {
      return;
    }
    root.hidden = !open;
    others.forEach((one) => (one.hidden = open));
    button.setAttribute("aria-pressed", String(open));
    app.emit("pick");
    if (open) {
      compare.begin();
    }
  };
  app.on("conversation", () => show(false));
  compare.on("adopted", () => {
    show(false);
    document.getElementById("message")?.focus();
  });
  return () => show(root.hidden);
}

class Compare extends Emitter {
  /** @type {Column[]} */
  #columns = [];
  #asked = null; // {prompt, settings}, of the run that is shown
  #row = element("div.compare-columns");
  #prompt = element("textarea", {
    ...{ id: "compare-prompt", rows: 2, placeholder: "One prompt for all columns" },
  });
  #run = element("button.primary", { type: "submit" }, "Run");
  #stop = element("button", { text: "Stop all", hidden: true });
  #seed = element("span.quiet");

  /** @param {import("./app.js").App} app */
  constructor(app) {
    super();
    this.app = app;
    const label = element("label.hidden", { for: this.#prompt.id, text: "Prompt" });
    const add = element("button", "+ Column");
    const buttons = element("div.row", this.#run, this.#stop, add);
    buttons.append(this.#seed);
    const form = element("form.compare-form", label, this.#prompt, buttons);
    this.element = element("div.compare-whole", form, this.#row);
    submitting(form, () => this.#runAll());
    entering(this.#prompt);
    this.#stop.addEventListener("click", () => this.#stopAll());
    add.addEventListener("click", () => {
      this.#added().element.querySelector("select").focus({ preventScroll: true });
    });
    app.on("view", () => this.#columns.forEach((column) => column.show()));
    app.on("models", () => this.#columns.forEach((column) => column.drawHead()));
  }

  /** Take the conversation's last question, and three columns to begin with. */
  begin() {
    const { app } = this;
    if (!this.#columns.length && app.models.length) {
      const start = { recipe: app.model, alpha: 1 };
      ["base", "tuned", null].forEach((only) => this.#add({ ...start, only }));
    }
    const last = app.tree.path().findLast(({ role }) => role === "user");
    this.#prompt.value ||= last?.text ?? "";
    this.#prompt.focus();
  }

  #added() {
    const recipe = this.app.model;
    const choices = this.#columns.map((column) => column.choice);
    const isThere = (alpha) =>
      choices.some((one) => one.recipe === recipe && !one.only && one.alpha === alpha);
    const alpha = MORE.find((one) => !isThere(one)) ?? MORE[0];
    const column = this.#add({ recipe, only: null, alpha });
    if (this.#asked) {
      this.#again(column);
    }
    column.reveal();
    return column;
  }

  #add(choice) {
    const column = new Column(this.app, choice);
    this.#columns.push(column);
    this.#row.append(column.element);
    column.on("changed", () => this.#asked && this.#again(column));
    column.on("ended", () => this.#next());
    column.on("adopted", () => this.emit("adopted"));
    column.on("removed", () => this.#remove(column));
    return column;
  }

  #remove(column) {
    const at = this.#columns.indexOf(column);
    column.stop();
    this.#columns.splice(at, 1);
    column.element.remove();
    const next = this.#columns[Math.min(at, this.#columns.length - 1)];
    (next?.element.querySelector("select") ?? this.#prompt).focus();
    this.#next();
  }

  #runAll() {
    const prompt = this.#prompt.value.trim();
    if (!prompt) {
      this.#prompt.focus();
      return;
    }
    const { settings } = this.app;
    const seed = settings.seed ?? drawnSeed();
    this.#asked = { prompt, settings: { ...settings, seed } };
    this.#seed.textContent = `Same seed: ${seed}`;
    this.#columns.forEach((column) => column.wait());
    this.#next();
  }

  #again(column) {
    column.wait();
    this.#next();
  }

  /** Start those that wait, as far as the server has room. */
  #next() {
    for (const column of this.#columns.filter((one) => one.isWaiting)) {
      if (this.#columns.filter((one) => one.isRunning).length < AT_ONCE) {
        column.run(this.#asked.prompt, this.#asked.settings);
      }
    }
    const isBusy = this.#columns.some((one) => one.isRunning || one.isWaiting);
    if (this.#stop.hidden === isBusy) {
      this.#stop.hidden = !isBusy;
      this.app.announce(isBusy ? "The columns run." : "All columns have ended.");
    }
  }

  #stopAll() {
    this.#columns.forEach((column) => column.stop());
    this.#next();
    this.#run.focus();
  }
}
