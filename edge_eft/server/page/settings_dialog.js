/** The dialog that asks how replies are to be drawn. */

import { element, setAttribute } from "./dom.js";
import { remember } from "./kept.js";
import { DEFAULTS } from "./settings.js";

/**
 * A number that is asked for. `low` and `high` are the server's own bounds; `above`: more than low.
 * @typedef {{
 *   name: string, label: string, start: string, low: number, high: number, help: string,
 *   step: number, above?: boolean,
 * }} Asked
 * @returns {Asked}
 */
function asked(name, label, start, low, high, help, more = {}) {
  return { name, label, start, low, high, help, step: 0.05, ...more };
}

const MOST = 2 ** 31 - 1;
const whole = { step: 1 };
const NUMBERS = [
  asked("temperature", "Temperature", "0.8", 0, 100, "0 always takes the likeliest token"),
  asked("top_p", "Top-p", "0.95", 0, 1, "draw from the likeliest that sum to it", { above: true }),
  asked("top_k", "Top-k", "40", 0, MOST, "draw from so many of the likeliest; 0: from all", whole),
  asked("min_p", "Min-p", "0", 0, 1, "drop tokens below this share of the likeliest"),
  asked("seed", "Seed", "another each time", 0, 2 ** 53 - 1, "same seed, same text", whole),
  asked("max_tokens", "Max tokens", "as the context", 1, MOST, "the longest reply", whole),
  asked("repetition_penalty", "Repetition penalty", "1", 0.01, 100, "on what was said; 1: off"),
  asked("presence_penalty", "Presence penalty", "0", -100, 100, "off what was said, once"),
  asked("frequency_penalty", "Frequency penalty", "0", -100, 100, "off what was said, each time"),
];
const MOST_DRAFTED = 15;

/**
 * What is wrong with a number, in the server's words; "" if nothing is.
 * @param {Asked} asked
 * @param {number} value  NaN: it is none
 */
export function wrongWith({ name, low, high, step, above }, value) {
  const kind = step === 1 ? "a whole number" : "a number";
  const fits = value >= low && value <= high && !(above && value === low);
  if (fits && (step !== 1 || Number.isInteger(value))) {
    return "";
  }
  const range = `${kind} in ${above ? "(" : "["}${low}, ${high}]`;
  return Number.isNaN(value) ? `it must be ${range}` : `${name} is ${value}; it must be ${range}`;
}

/**
 * Make the dialog.
 * @param {import("./app.js").App} app
 * @returns {() => void}  opens it
 */
export function settingsDialog(app) {
  const set = (change) => {
    app.settings = { ...app.settings, ...change };
    app.emit("settings");
  };
  const fields = [
    systemField(app, set),
    ...NUMBERS.map((number) => numberField(app, set, number)),
    draftField(app, set),
    stopField(app, set),
    explainField(app, set),
  ];
  const draw = () => fields.forEach((field) => field.draw());
  const dialog = dialogOf(fields, () => {
    set(DEFAULTS);
    draw();
  });
  dialog.addEventListener("close", () => {
    remember("settings", JSON.stringify(app.settings));
    app.keep();
  });
  document.body.append(dialog);
  return () => {
    draw();
    dialog.showModal();
  };
}

function dialogOf(fields, reset) {
  const title = element("h2", { id: "settings-title", text: "Settings" });
  const note = "They hold for this conversation, and new ones begin with them.";
  const form = element(
    "form",
    { method: "dialog", novalidate: true },
    element("header", title, element("p", note)),
    element("div.settings-fields", ...fields.map((field) => field.element)),
    element(
      "footer",
      {},
      element("button", { text: "Reset to defaults", onclick: reset }),
      element("button.primary", { type: "submit" }, "Done"),
    ),
  );
  form.addEventListener("submit", (event) => {
    const wrong = form.querySelector("[aria-invalid=true]");
    if (wrong) {
      event.preventDefault();
      wrong.focus();
    }
  });
  const dialog = element("dialog.settings", { "aria-labelledby": title.id }, form);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return dialog;
}

const FIELD = "settings-field";
const WIDE = `${FIELD} is-wide`;

/** A control with its label, a line of help, and a place for what is wrong with it. */
function fieldOf(name, label, control, help, names = FIELD) {
  const id = `setting-${name}`;
  control.id = id;
  const about = element("span.settings-help", { id: `${id}-help`, text: help });
  const wrong = element("span.settings-wrong", { id: `${id}-wrong`, role: "alert" });
  control.setAttribute("aria-describedby", `${about.id} ${wrong.id}`);
  const named = element("label", { for: id, text: label });
  return {
    element: element("div", { class: names }, named, control, about, wrong),
    say(text) {
      wrong.textContent = text;
      setAttribute(control, "aria-invalid", text ? true : null);
    },
  };
}

function numberField(app, set, number) {
  const { name, low, high, step } = number;
  const input = element("input", {
    type: "number",
    placeholder: number.start,
    inputmode: step === 1 ? "numeric" : "decimal",
    ...{ min: Math.floor(low), max: high, step },
  });
  const field = fieldOf(name, number.label, input, number.help);
  input.addEventListener("input", () => {
    const isEmpty = input.value === "" && !input.validity.badInput;
    const problem = isEmpty ? "" : wrongWith(number, input.valueAsNumber);
    field.say(problem);
    if (!problem) {
      set({ [name]: isEmpty ? null : input.valueAsNumber });
    }
  });
  return {
    element: field.element,
    draw() {
      input.value = app.settings[name] ?? "";
      field.say("");
    },
  };
}

function systemField(app, set) {
  const text = element("textarea", { rows: 3, placeholder: "none" });
  text.addEventListener("input", () => set({ system: text.value }));
  const help = "tells the models what they are to be, before the first message";
  const { element: made } = fieldOf("system", "System prompt", text, help, WIDE);
  return { element: made, draw: () => (text.value = app.settings.system) };
}

function stopField(app, set) {
  const text = element("textarea", { rows: 2, placeholder: "none" });
  text.addEventListener("input", () => set({ stop: text.value.split("\n").filter(Boolean) }));
  const help = "one a line: the reply ends before one of them";
  const { element: made } = fieldOf("stop", "Stop strings", text, help, WIDE);
  return { element: made, draw: () => (text.value = app.settings.stop.join("\n")) };
}

function draftField(app, set) {
  const counts = Array.from({ length: MOST_DRAFTED + 1 }, (_, n) => String(n));
  const options = counts.map((n) => new Option(n === "0" ? "0: off" : n, n));
  const select = element("select", new Option("auto", "auto"), ...options);
  select.addEventListener("change", () => {
    set({ draft: select.value === "auto" ? "auto" : Number(select.value) });
  });
  const help = "tokens that tuned drafts, for speed";
  const { element: made } = fieldOf("draft", "Draft", select, help);
  return { element: made, draw: () => (select.value = String(app.settings.draft)) };
}

function explainField(app, set) {
  const box = element("input", { type: "checkbox" });
  box.addEventListener("change", () => set({ explain: box.checked }));
  const label = "Ask what each model thought of each token";
  const help = "for the token view; a little slower";
  const { element: made } = fieldOf("explain", label, box, help, `${WIDE} settings-check`);
  return { element: made, draw: () => (box.checked = app.settings.explain) };
}
