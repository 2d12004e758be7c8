/** A dial as one can take hold of it: a range, with its marks below, and a number field. */

import { element } from "./dom.js";
import { shown } from "./numbers.js";

const MOST = 2;
const STEP = 0.05;

let n_made = 0;

/** @typedef {{value: number, label: string}[]} Marks */

/**
 * Make a slider from 0 to 2; the number field takes larger numbers, too.
 * @param {string} label  its visible name
 * @param {Marks} marks
 * @param {{moved: (value: number) => void, left: () => void}} told  while it is moved; at its end
 * @returns {{element: HTMLElement, set: (value: number) => void, name: Function}}
 */
export function slider(label, marks, { moved, left }) {
  const parts = made();
  const { range, number, name } = parts;
  let value = 0;
  let known = [];
  const hold = holding(range, left);

  function draw() {
    range.value = String(value);
    const mark = known.find((one) => one.value === value);
    range.setAttribute("aria-valuetext", shown(value) + (mark ? `, ${mark.label}` : ""));
    if (document.activeElement !== number || number.valueAsNumber !== value) {
      number.value = shown(value);
    }
  }

  function take(given) {
    value = given;
    hold.moves();
    draw();
    moved(value);
  }

  function rename(text, given) {
    if (known === given && name.textContent === text) {
      return;
    }
    known = given;
    named(parts, text, given);
    draw();
  }

  range.addEventListener("input", () => take(range.valueAsNumber));
  number.addEventListener("input", () => isFit(number) && take(number.valueAsNumber));
  number.addEventListener("change", () => {
    number.setCustomValidity("");
    number.value = shown(value); // what was not a number, or below 0, is not kept
    hold.ends();
  });
  rename(label, marks);
  return {
    element: parts.element,
    set(given) {
      value = given;
      draw();
    },
    name: rename,
  };
}

/** The elements that a slider is made of. */
function made() {
  const list = element("datalist", { id: `marks-${++n_made}` });
  const limits = { min: 0, step: STEP };
  const range = element("input", { type: "range", max: MOST, list: list.id, ...limits });
  const number = element("input", { type: "number", inputmode: "decimal", ...limits });
  const name = element("span.slider-name");
  const labels = element("span.slider-marks", { "aria-hidden": "true" });
  const track = element("span.slider-track", range, labels, list);
  const whole = element("div.slider.row", name, track, number);
  return { element: whole, range, number, name, labels, list };
}

/** Name a slider, and put its marks below it. */
function named({ range, number, name, labels, list }, text, marks) {
  name.textContent = text;
  range.setAttribute("aria-label", text);
  number.setAttribute("aria-label", `${text}, as a number`);
  list.replaceChildren(...marks.map((mark) => element("option", { value: mark.value })));
  labels.replaceChildren(...marks.map((mark) => labelOf(mark)));
}

/** Tells when a range is let go of; a key that is down may repeat, and is none of many ends. */
function holding(range, left) {
  let isMoved = false;
  let isKeyed = false;
  const ends = () => {
    if (isMoved && !isKeyed) {
      isMoved = false;
      left();
    }
  };
  const keyed = (isDown) => {
    isKeyed = isDown;
    ends();
  };
  range.addEventListener("change", ends);
  range.addEventListener("keydown", () => keyed(true));
  range.addEventListener("keyup", () => keyed(false));
  range.addEventListener("blur", () => keyed(false));
  return { moves: () => (isMoved = true), ends };
}

/** Whether what is typed can be taken; what is wrong is said beside it. */
function isFit(number) {
  const isNone = number.value === "" && !number.validity.badInput; // another is to be typed
  const isWrong = !isNone && !(number.valueAsNumber >= 0);
  number.setCustomValidity(isWrong ? "A dial is a number from 0 up" : "");
  if (isWrong) {
    number.reportValidity();
  }
  return !isNone && !isWrong;
}

function labelOf({ value, label }) {
  const made = element("span", label);
  made.style.setProperty("--at", String(Math.min(value, MOST) / MOST));
  return made;
}
