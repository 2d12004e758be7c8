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
const above = { above: true };
const NUMBERS = [
  asked("temperature", "Temperature", "0.8", 0, 100, "how random; 0: always the likeliest token"),
  asked("top_p", "Top-p", "0.95", 0, 1, "keep the likeliest up to this probability; 1: off", above),
  asked("top_k", "Top-k", "40", 0, MOST, "keep this many of the likeliest tokens; 0: off", whole),
  asked("min_p", "Min-p", "0", 0, 1, "drop tokens below this share of the likeliest; 0: off"),
  asked("seed", "Seed", "another each time", 0, 2 ** 53 - 1, "same seed, same reply", whole),
  asked("max_tokens", "Max tokens", "as the context", 1, MOST, "the longest reply", whole),
  asked("repetition_penalty", "Repetition penalty", "1", 0.01, 100, "for used tokens; 1: off"),
  asked("presence_penalty", "Presence penalty", "0", -100, 100, "for any used token; 0: off"),
  asked("frequency_penalty", "Frequency penalty", "0", -100, 100, "for each use of it; 0: off"),
];
const MOST_DRAFTED = 15;

/**
 * What is wrong with a number, in the server's words; "" if nothing is.
 * @param {Asked} asked
 * @param {number} value  NaN: it is none
 */
function wrongWith({ name, low, high, step, above }, value) {
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
  const title = element("h2", { id: "settings-title" }, "Settings");
  const note = "They hold for this conversation, and new ones begin with them.";
  const form = element(
    "form",
    { method: "dialog", novalidate: true },
    element("header", title, element("p.quiet", note)),
    element("div.settings-fields", ...fields.map((field) => field.element)),
    element(
      "footer.row",
      element("button", { onclick: reset }, "Reset to defaults"),
      element("button.primary", { type: "submit" }, "Done"),
    ),
  );
  let refused = null; // what was wrong when Escape did not close it
  const keepOpen = (event) => {
    const wrong = form.querySelector("[aria-invalid=true]");
    if (wrong && (event.type === "submit" || refused !== wrong.value)) {
      event.preventDefault();
      wrong.focus();
      refused = wrong.value;
    }
  };
  form.addEventListener("submit", keepOpen);
  const onclick = ({ target }) => target === dialog && dialog.close();
  const dialog = element("dialog.settings", { "aria-labelledby": title.id, onclick }, form);
  dialog.addEventListener("cancel", keepOpen); // Escape; a second one closes it
  dialog.addEventListener("close", () => (refused = null));
  return dialog;
}

const FIELD = "settings-field";
const WIDE = `${FIELD} is-wide`;

/** A control with its label, a line of help, and a place for what is wrong with it. */
function fieldOf(name, label, control, help, names = FIELD) {
  const id = `setting-${name}`;
  control.id = id;
  const about = element("span.settings-help.quiet", { id: `${id}-help`, text: help });
  const wrong = element("span.settings-wrong.is-bad", { id: `${id}-wrong`, role: "alert" });
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

/** A control of no number: `draw` shows what is set, `read` is what was typed or chosen. */
function otherField(app, set, about) {
  const { name, label, control, help, names = WIDE, draw, read } = about;
  control.addEventListener("input", () => set({ [name]: read() }));
  return { ...fieldOf(name, label, control, help, names), draw: () => draw(app.settings[name]) };
}

function systemField(app, set) {
  const control = element("textarea", { rows: 3, placeholder: "none" });
  return otherField(app, set, {
    ...{ name: "system", label: "System prompt", control },
    help: "instructions that come before the first message",
    draw: (system) => (control.value = system),
    read: () => control.value,
  });
}

function stopField(app, set) {
  const control = element("textarea", { rows: 2, placeholder: "none" });
  return otherField(app, set, {
    ...{ name: "stop", label: "Stop strings", control },
    help: "one per line; the reply ends before the first that comes",
    draw: (stop) => (control.value = stop.join("\n")),
    read: () => control.value.split("\n").filter(Boolean),
  });
}

function draftField(app, set) {
  const counts = Array.from({ length: MOST_DRAFTED }, (_, n) => new Option(n + 1));
  const ends = [new Option("auto"), new Option("0: off", 0)];
  const control = element("select", ...ends, ...counts);
  return otherField(app, set, {
    ...{ name: "draft", label: "Draft", control, names: FIELD },
    help: "tokens that the small tuned model drafts ahead, for speed",
    draw: (draft) => (control.value = draft),
    read: () => (control.value === "auto" ? "auto" : Number(control.value)),
  });
}

function explainField(app, set) {
  const control = element("input", { type: "checkbox" });
  return otherField(app, set, {
    ...{ name: "explain", label: "Ask what each model thought of each token", control },
    ...{ help: "for the token view; a little slower", names: `${WIDE} settings-check` },
    draw: (isAsked) => (control.checked = isAsked),
    read: () => control.checked,
  });
}
