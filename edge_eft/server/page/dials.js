/** The dials: how strongly the delta acts, in a bar that stays in sight. */

import { element, setAttribute } from "./dom.js";
import { shown } from "./numbers.js";
import { paced } from "./pace.js";
import { slider } from "./slider.js";
import { inWords, mainDelta, sameWeights } from "./weights.js";

const PACE = 400; // ms between two changes of a reply while a dial is held: each leaves a mark

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
function formula(weights, deltas) {
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
function tunedModels({ model, models }) {
  const parts = models.filter(({ id }) => id.startsWith(`${model}:tuned`));
  return parts.map(({ id }) => id.slice(model.length + 1));
}

/**
 * Draw the dials into their bar.
 * @param {import("./app.js").App} app
 * @param {HTMLElement} root
 */
export function mountDials(app, root) {
  const send = paced((generation, weights) => generation.setWeights(weights), PACE);
  /** Turn the dials; `isHeld` while the person holds one. */
  const turn = (change, isHeld = false) => {
    const { generation } = app;
    app.dials = { ...app.dials, ...change };
    app.isTurned = true;
    app.emit("dials");
    if (generation && isHeld) {
      send(generation, app.weights);
    } else {
      send.drop();
      generation?.setWeights(app.weights);
    }
    if (!isHeld) {
      app.keep();
    }
  };
  const parts = [presets(app, turn), strength(app, turn), words(app, turn), mixture(app, turn)];
  root.replaceChildren(...parts.map((part) => part.element), foldOf(root));
  const draw = () => parts.forEach((part) => part.draw());
  app.on("dials model models", draw);
  draw();
}

/** Buttons of which some are pressed; `choices`: text, title, and what it does. */
function segments(options, choices) {
  const buttons = choices.map(([text, title, onclick]) =>
    element("button", { text, title, onclick }),
  );
  const press = (isPressed) =>
    buttons.forEach((one, at) => setAttribute(one, "aria-pressed", isPressed[at]));
  return { element: element("div.segments", { role: "group", ...options }, ...buttons), press };
}

function presets(app, turn) {
  const whole = { alpha: 1, beta: 1, mix: null, only: null };
  const base = { ...whole, mode: "alpha", alpha: 0 };
  const group = segments({ "aria-label": "Presets" }, [
    ["Base", "The large base alone: α = 0", () => turn(base)],
    ["Emulated", "The base with the delta, as the recipe has it", () => turn(whole)],
    ["Tuned alone", "The small tuned model, without the base", () => turn({ only: "tuned" })],
  ]);
  return {
    element: group.element,
    draw() {
      const { deltas, weights } = app;
      const isBase = sameWeights(weights, { alpha: 0 }, deltas);
      const isTuned = weights.only !== undefined && weights.only !== "base";
      group.press([isBase, !isBase && sameWeights(weights, { alpha: 1 }, deltas), isTuned]);
    },
  };
}

const RECIPE = { value: 1, label: "recipe" };
const MARKS = {
  alpha: [{ value: 0, label: "base" }, RECIPE],
  beta: [{ value: 0, label: "tuned" }, RECIPE],
};

function strength(app, turn) {
  const dial = slider("Strength α", MARKS.alpha, {
    moved: (value) => turn({ [app.dials.mode]: value, only: null }, true),
    left: () => turn({}),
  });
  const to = (mode) => () => turn({ mode, only: null });
  const about = { class: "segments dials-mode", "aria-label": "Which dial" };
  const modes = segments(about, [
    ["α", "α: how strongly the delta acts on the base", to("alpha")],
    ["β", "β: how strongly the step from reference to base acts on the tuned model", to("beta")],
  ]);
  for (const button of modes.element.children) {
    button.setAttribute("aria-label", button.title);
  }
  return {
    element: element("div.dials-strength.row", modes.element, dial.element),
    draw() {
      const { mode, only } = app.dials;
      dial.name(`Strength ${mode === "beta" ? "β" : "α"}`, MARKS[mode]);
      dial.set(app.dials[mode]);
      dial.element.classList.toggle("is-idle", Boolean(only));
      modes.press([mode === "alpha", mode === "beta"]);
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
  const fold = (isAway) => {
    root.classList.toggle("is-folded", isAway);
    setAttribute(button, "aria-expanded", !isAway);
  };
  fold(narrow.matches);
  narrow.addEventListener("change", () => fold(narrow.matches));
  return button;
}

/** One slider for each delta of a recipe that has several. */
function mixture(app, turn) {
  const reset = element("button", { onclick: () => turn({ mix: null }) }, "As in the recipe");
  const rows = element("div.dials-mix.row", { hidden: true });
  /** @type {Object<string, any>} */
  let sliders = {};
  let drawn = "";

  function rebuild(deltas) {
    sliders = {};
    for (const [name, value] of Object.entries(deltas)) {
      const moved = (weight) =>
        turn({ mix: { ...deltas, ...app.dials.mix, [name]: weight }, only: null }, true);
      const marks = [{ value, label: "recipe" }];
      sliders[name] = slider(name, marks, { moved, left: () => turn({}) });
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
  const row = element("div.dials-row.row", line, which);
  return {
    element: row,
    draw() {
      const { weights, deltas } = app;
      const { mix, ...dial } = weights;
      const isOne = weights.only === undefined && sameWeights(weights, dial, deltas);
      row.classList.toggle("is-one", isOne); // the dial in sight says it
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
