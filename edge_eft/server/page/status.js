/** One line: how fast replies come, how much memory it takes, and what the server is busy with. */

import { element } from "./dom.js";
import { Emitter } from "./events.js";
import { bytes, counted, share, speed } from "./numbers.js";
import { paced } from "./pace.js";

const DRAWN_EVERY = 250; // ms, while a reply comes
// ms until the server is asked again
const SOON = 300; // while it loads: for the bar
const AWAY = 1000;
const SELDOM = 30_000;

const NOTHING_LOST = "Nothing is lost: what was said is kept in this browser.";

/**
 * Draw the line, and keep asking how the server does.
 * @param {import("./app.js").App} app
 * @param {HTMLElement} root
 */
export function mountStatus(app, root) {
  const doing = element("div.status-doing.row");
  const figures = element("dl.status-figures.row");
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
  watch.on("health", draw);
  app.on("conversation turns models model", draw);
  app.on("generation", (generation) => {
    if (generation && app.generations.has(generation.turn.id)) {
      generation.on("text tokens progress", soon);
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
class Watch extends Emitter {
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
    if (before === "gone" && this.health.status !== "gone" && this.app.models.length) {
      await this.app.learn().catch(() => {}); // who was away may have come back with others
    }
    this.emit("health");
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
}

/** What is going on, if it is worth a word: its kind, a text, and how much of how much. */
function activity(app, /** @type {Health} */ { status, error, progress }) {
  const bad = {
    gone: "The server does not answer; trying again.",
    down: "The engine is down.",
    restarting: "The engine had ended, and starts again.",
  };
  if (status in bad) {
    const why = status === "down" ? (error?.message ?? error ?? "") : "";
    return { kind: status, text: `${bad[status]} ${NOTHING_LOST} ${why}`.trim() };
  }
  if (progress || status === "loading") {
    const { bytes: done, total } = progress ?? {};
    const text = total ? `Loading: ${bytes(done)} of ${bytes(total)}` : "Loading the models";
    return { kind: "loading", text, bar: total ? [done, total] : [] };
  }
  const reading = app.generation?.progress;
  if (reading && reading.processed < reading.total) {
    const { processed, total } = reading;
    const done = processed.toLocaleString("en");
    const text = `Reading the prompt: ${done} of ${counted(total, "token")}`;
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
  const { n_ctx } = app.meta;
  const all = times && times.cache_n + times.prompt_n + times.predicted_n;
  const used = n_ctx ? Math.min(all, n_ctx) : all; // the last token of a full one takes no place
  const figures = [
    ["Speed", rate && speed(rate)],
    ["First token", firstMs && `${(firstMs / 1000).toFixed(2)} s`],
    ["Drafts accepted", drafted && share(accepted, drafted)],
    ["Context", used && n_ctx && `${used.toLocaleString("en")} of ${n_ctx.toLocaleString("en")}`],
    ["Memory", memory && bytes(memory)],
  ];
  return figures.filter(([, value]) => value);
}

function drawFigures(root, figures) {
  const row = ([name, value]) => element("div", element("dt", name), element("dd", value));
  root.replaceChildren(...figures.map(row));
}
