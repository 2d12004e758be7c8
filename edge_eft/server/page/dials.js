/** The dials: how strongly the delta acts, in a bar that stays in sight. */

import { element } from "./dom.js";
import { shown } from "./numbers.js";
import { paced } from "./pace.js";
import { slider } from "./slider.js";
import { inWords, mainDelta, sameWeights } from "./weights.js";

const PACE = 100; // ms between two changes of a reply that is coming

/** The dials that a conversation begins with. `mix` null: the recipe's. `only`: one model alone. */
export function startDials() {
  return { mode: "alpha", alpha: 1, beta: 1, mix: null, only: null };
}

/**
 * The weights that dials stand for. Dials may come from another recipe, whose deltas are left out.
 * @param {{mode: string, alpha: number, beta: number, mix: ?Object, only: ?string}} dials
 * @param {Object<string, number>} deltas  the recipe's, name → weight
 * @returns {import("./weights.js").Weights}
 */
export function weightsOf({ mode, alpha, beta, mix, only }, deltas) {
  if (only) {
    const delta = only.split(":")[1];
    return { only: delta === undefined || delta in deltas ? only : "tuned" };
  }
  const named = Object.entries(mix ?? {}).filter(([name]) => name in deltas);
  const mixed = named.length ? { mix: { ...deltas, ...Object.fromEntries(named) } } : {};
  return mode === "beta" ? { beta, ...mixed } : { alpha, ...mixed };
}

/**
 * What the weights make of the models: "base + 0.8 · (tuned − reference)".
 * @param {import("./weights.js").Weights} weights
 * @param {Object<string, number>} deltas
 */
export function formula(weights, deltas) {
  if (weights.only !== undefined) {
    return weights.only === "base" ? "base" : "tuned, without the base";
  }
  const mix = weights.mix ?? deltas;
  const { alpha = 1, beta } = weights;
  if (beta === undefined && (alpha === 0 || !sumOf(mix))) {
    return "base";
  }
  const [only, ...more] = Object.values(mix).filter((weight) => weight !== 0);
  const isPlain = only === 1 && !more.length;
  if (beta === undefined) {
    return `base + ${shown(alpha)} · (${isPlain ? "tuned − reference" : sumOf(mix)})`;
  }
  const of = isPlain ? "" : " mix";
  return `tuned${of} + ${shown(beta)} · (base − reference${of})`;
}

/** The models of the recipe's deltas, as `only` names them: "tuned" and "tuned:NAME". */
function tunedModels(app) {
  const start = `${app.model}:`;
  const parts = app.models.filter(({ id }) => id.startsWith(`${start}tuned`));
  return parts.map(({ id }) => id.slice(start.length));
}

/**
 * Draw the dials into their bar.
 * @param {import("./app.js").App} app
 * @param {HTMLElement} root
 */
export function mountDials(app, root) {
  const send = paced((generation, weights) => generation.setWeights(weights), PACE);
  /** Turn the dials; `ended` once the person has let go of them. */
  const turn = (change, ended = true) => {
    app.dials = { ...app.dials, ...change };
    app.emit("dials");
    if (app.generation) {
      send(app.generation, app.weights);
    }
    if (ended) {
      app.keep();
    }
  };
  const parts = [presets(app, turn), strength(app, turn), words(app, turn), mixture(app, turn)];
  root.replaceChildren(...parts.map((part) => part.element), foldOf(root));
  const draw = () => parts.forEach((part) => part.draw());
  app.on("dials model models", draw);
  draw();
}

function presets(app, turn) {
  const whole = { alpha: 1, beta: 1, mix: null, only: null };
  /** @type {[string, string, () => Object][]} */
  const choices = [
    ["Base", "The large base alone: α = 0", () => ({ ...whole, mode: "alpha", alpha: 0 })],
    ["Emulated", "The base with the delta, as the recipe has it", () => whole],
    ["Tuned alone", "The small tuned model, without the base", () => ({ only: "tuned" })],
  ];
  const buttons = choices.map(([text, title, dials]) =>
    element("button", { text, title, onclick: () => turn(dials()) }),
  );
  const group = { class: "segments", role: "group", "aria-label": "Presets" };
  return {
    element: element("div", group, ...buttons),
    draw() {
      const { deltas, weights } = app;
      const alone = weights.only !== undefined && weights.only !== "base";
      const held = [{ alpha: 0 }, { alpha: 1 }].map((one) => sameWeights(weights, one, deltas));
      [held[0], held[1] && !held[0], alone].forEach((is, at) =>
        buttons[at].setAttribute("aria-pressed", String(is)),
      );
    },
  };
}

const RECIPE = { value: 1, label: "recipe" };
const MODES = {
  alpha: {
    sign: "α",
    title: "α: how strongly the delta acts on the base",
    marks: [{ value: 0, label: "base" }, RECIPE],
  },
  beta: {
    sign: "β",
    title: "β: how strongly the step from reference to base acts on the tuned model",
    marks: [{ value: 0, label: "tuned" }, RECIPE],
  },
};

function strength(app, turn) {
  const change = (value, ended) => turn({ [app.dials.mode]: value, only: null }, ended);
  const dial = slider("Strength α", MODES.alpha.marks, {
    moved: (value) => change(value, false),
    left: () => app.keep(),
  });
  const buttons = Object.entries(MODES).map(([mode, { sign, title }]) =>
    element("button", {
      text: sign,
      title,
      "aria-label": title,
      onclick: () => turn({ mode, only: null }),
    }),
  );
  const group = { class: "segments dials-mode", role: "group", "aria-label": "Which dial" };
  const switches = element("div", group, ...buttons);
  let mode = "alpha";
  return {
    element: element("div.dials-strength", switches, dial.element),
    draw() {
      if (mode !== app.dials.mode) {
        mode = app.dials.mode;
        dial.name(`Strength ${MODES[mode].sign}`, MODES[mode].marks);
      }
      dial.set(app.dials[mode]);
      dial.element.classList.toggle("is-idle", Boolean(app.dials.only));
      Object.keys(MODES).forEach((one, at) =>
        buttons[at].setAttribute("aria-pressed", String(one === mode)),
      );
    },
  };
}

/** A button for what can be folded away: the mix; on a phone, which begins so, the words, too. */
function foldOf(root) {
  const button = element(
    "button.plain.dials-fold",
    { onclick: () => fold(!isFolded()) },
    ...[element("span", "Mix"), element("span.only-narrow", "More")],
  );
  const narrow = matchMedia("(max-width: 760px)");
  const isFolded = () => root.classList.contains("is-folded");
  function fold(isAway) {
    root.classList.toggle("is-folded", isAway);
    button.setAttribute("aria-expanded", String(!isAway));
  }
  fold(narrow.matches);
  narrow.addEventListener("change", () => fold(narrow.matches));
  return button;
}

/** One slider for each delta of a recipe that has several. */
function mixture(app, turn) {
  const reset = element("button", {
    ...{ text: "As in the recipe" },
    onclick: () => turn({ mix: null }),
  });
  const rows = element("div.dials-mix", { hidden: true });
  /** @type {Object<string, import("./slider.js").Slider>} */
  let sliders = {};
  let drawn = "";

  function rebuild(deltas) {
    sliders = {};
    for (const [name, value] of Object.entries(deltas)) {
      const moved = (weight) =>
        turn({ mix: { ...deltas, ...app.dials.mix, [name]: weight }, only: null }, false);
      const marks = [{ value, label: "recipe" }];
      sliders[name] = slider(name, marks, { moved, left: () => app.keep() });
    }
    const all = Object.values(sliders).map((one) => one.element);
    rows.replaceChildren(...all, reset);
    rows.hidden = all.length < 2;
  }

  return {
    element: rows,
    draw() {
      const { deltas, dials } = app;
      if (drawn !== JSON.stringify(deltas)) {
        drawn = JSON.stringify(deltas);
        rebuild(deltas);
      }
      const { mix = deltas } = weightsOf({ ...dials, only: null }, deltas);
      for (const [name, one] of Object.entries(sliders)) {
        one.set(mix[name]);
        one.element.classList.toggle("is-idle", Boolean(dials.only));
      }
      reset.disabled = dials.mix === null;
    },
  };
}

/** "0.7 chat + 0.3 brief", without deltas of no weight. */
function sumOf(mix) {
  const used = Object.entries(mix).filter(([, weight]) => weight !== 0);
  return used.map(([name, weight]) => `${shown(weight)} ${name}`).join(" + ");
}

/** What holds, in words; and which of several tuned models is meant by "tuned alone". */
function words(app, turn) {
  const short = element("strong");
  const long = element("span.dials-formula");
  const line = element("p.dials-words", short, " ", long);
  const which = element("select", {
    "aria-label": "Which tuned model",
    onchange: () => turn({ only: which.value }),
  });
  return {
    element: element("div.dials-row", line, which),
    draw() {
      const { weights, deltas } = app;
      short.textContent = inWords(weights, deltas);
      long.textContent = formula(weights, deltas);
      const models = tunedModels(app);
      which.hidden = !weights.only?.startsWith("tuned") || models.length < 2;
      const name = (model) => model.split(":")[1] ?? mainDelta(deltas);
      which.replaceChildren(...models.map((model) => new Option(name(model), model)));
      which.value = weights.only ?? "";
    },
  };
}
