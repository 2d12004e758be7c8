/** One line: how fast replies come, how much memory it takes, and what the server is busy with. */

import { element } from "./dom.js";
import { paced } from "./pace.js";

const DRAWN_EVERY = 250; // ms, while a reply comes
// ms until the server is asked again
const SOON = 300; // while it loads: for the bar
const AWAY = 1000;
const SELDOM = 30_000;

const NOTHING_LOST = "Nothing is lost: what was said is kept in this browser.";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** A number of bytes in words: "5.2 GiB". */
export function bytes(n) {
  const power = Math.min(4, Math.floor(Math.log2(Math.max(1, n)) / 10));
  const value = n / 1024 ** power;
  return `${value.toFixed(power && value < 100 ? 1 : 0)} ${UNITS[power]}`;
}

function counted(n) {
  return n.toLocaleString("en");
}

/**
 * Draw the line, and keep asking how the server does.
 * @param {import("./app.js").App} app
 * @param {HTMLElement} root
 */
export function mountStatus(app, root) {
  const doing = element("div", { class: "status-doing" });
  const figures = element("dl", { class: "status-figures" });
  root.replaceChildren(doing, figures);
  const watch = new Watch(app);
  let said = "";
  const draw = () => {
    const { kind, text, bar } = activity(app, watch.health);
    drawActivity(doing, kind, text, bar);
    drawFigures(figures, figuresOf(app, watch.health));
    if (kind !== said && (kind || said)) {
      app.announce(kind ? text : "The server is ready.");
    }
    said = kind === "prompt" ? said : kind;
  };
  const soon = paced(draw, DRAWN_EVERY);
  watch.addEventListener("health", draw);
  app.on("conversation turns models model", draw);
  app.on("generation", (generation) => {
    if (generation && app.generations.has(generation.turn.id)) {
      for (const name of ["text", "tokens", "progress"]) {
        generation.addEventListener(name, soon);
      }
    }
    draw();
    watch.ask();
  });
  watch.ask();
}

/**
 * @typedef {{
 *   status: string, error?: any, memory?: number, progress?: {bytes: number, total: number},
 * }} Health
 */

/** Asks /health: often while something is to come of it. Tells "health" after each answer. */
class Watch extends EventTarget {
  #timer = 0;
  #isAsking = false;

  constructor(app) {
    super();
    this.app = app;
    /** @type {Health} */
    this.health = { status: "ok" };
    document.addEventListener("visibilitychange", () => document.hidden || this.ask());
  }

  async ask() {
    if (this.#isAsking) {
      return;
    }
    this.#isAsking = true;
    clearTimeout(this.#timer);
    const before = this.health.status;
    this.health = await this.app.api.health();
    this.#isAsking = false;
    this.#timer = setTimeout(() => this.ask(), this.#pause());
    if (before === "gone" && this.health.status !== "gone") {
      await this.#learnAgain();
    }
    this.dispatchEvent(new CustomEvent("health"));
  }

  #pause() {
    const { status } = this.health;
    if (document.hidden) {
      return SELDOM;
    }
    if (status === "gone" || status === "down") {
      return AWAY;
    }
    const isWaiting = [...this.app.generations.values()].some((one) => one.firstTokenMs === null);
    return status === "loading" || status === "restarting" || isWaiting ? SOON : SELDOM;
  }

  /** Who was away may have come back with other models. */
  async #learnAgain() {
    const { app } = this;
    if (!app.models.length) {
      return; // they are being asked for already
    }
    try {
      app.models = await app.api.models();
    } catch {
      return; // they stay as they were known
    }
    if (!app.models.some(({ id }) => id === app.model)) {
      app.model = app.models[0].id;
    }
    app.emit("models");
  }
}

/** What is going on, if it is worth a word: its kind, a text, and how much of how much. */
function activity(app, /** @type {Health} */ { status, error, progress }) {
  if (status === "gone") {
    return { kind: "gone", text: `The server does not answer; trying again. ${NOTHING_LOST}` };
  }
  if (status === "down") {
    const why = typeof error === "string" ? error : (error?.message ?? "");
    return { kind: "down", text: `The engine is down. ${NOTHING_LOST} ${why}` };
  }
  if (status === "restarting") {
    return { kind: "restarting", text: `The engine had ended, and starts again. ${NOTHING_LOST}` };
  }
  if (progress || status === "loading") {
    const { bytes: done, total } = progress ?? {};
    const text = total ? `Loading: ${bytes(done)} of ${bytes(total)}` : "Loading the models";
    return { kind: "loading", text, bar: total ? [done, total] : [] };
  }
  const reading = app.generation?.progress;
  if (reading && reading.processed < reading.total) {
    const { processed, total } = reading;
    const text = `Reading the prompt: ${counted(processed)} of ${counted(total)} tokens`;
    return { kind: "prompt", text, bar: [processed, total] };
  }
  return { kind: "", text: "" };
}

function drawActivity(root, kind, text, bar) {
  root.hidden = !kind;
  root.classList.toggle("is-bad", kind === "gone" || kind === "down");
  let progress = root.querySelector("progress");
  if (!bar) {
    root.textContent = text;
    return;
  }
  if (!progress) {
    progress = element("progress", { "aria-labelledby": "status-text" });
    root.replaceChildren(element("span", { id: "status-text" }), progress);
  }
  root.firstElementChild.textContent = text;
  if (bar.length) {
    [progress.value, progress.max] = bar;
  } else {
    progress.removeAttribute("value");
  }
}

/** The figures of the reply that comes, else of the last one, and of the server. */
function figuresOf(app, /** @type {Health} */ { memory }) {
  const running = app.generation;
  const turn = running?.turn ?? app.tree.path().findLast((one) => one.timings);
  const times = turn?.timings;
  const rate = times?.predicted_per_second || running?.rate;
  const firstMs = running?.firstTokenMs ?? turn?.first_token_ms;
  const [accepted, drafted] = times
    ? [times.draft_n_accepted, times.draft_n]
    : [running?.accepted, running?.drafted];
  const used = times && times.cache_n + times.prompt_n + times.predicted_n;
  const { n_ctx } = app.meta;
  const figures = [
    ["Speed", rate && `${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`],
    ["First token", firstMs && `${(firstMs / 1000).toFixed(2)} s`],
    ["Drafts accepted", drafted && `${Math.round((100 * accepted) / drafted)} %`],
    ["Context", used && n_ctx && `${counted(used)} of ${counted(n_ctx)}`],
    ["Memory", memory && bytes(memory)],
  ];
  return figures.filter(([, value]) => value);
}

function drawFigures(root, figures) {
  const rows = figures.map(([name, value]) =>
    element("div", {}, element("dt", { text: name }), element("dd", { text: value })),
  );
  root.replaceChildren(...rows);
}
