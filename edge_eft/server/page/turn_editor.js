/** The field in which a turn is written anew. */

import { edit } from "./branches.js";
import { element } from "./dom.js";
import { growing, submitting } from "./field.js";

/**
 * Ctrl+Enter saves, Escape leaves it as it was.
 * @param {import("./app.js").App} app
 * @param {import("./tree.js").Turn} turn
 * @param {() => void} end  puts what is shown of the turn in the field's place again
 * @returns {HTMLFormElement}
 */
export function turnEditor(app, turn, end) {
  const area = element("textarea.turn-area", { "aria-label": "Text of the turn", rows: 2 });
  area.value = turn.text;
  const save = () => {
    if (area.value.trim()) {
      end();
      edit(app, turn, area.value);
    }
  };
  const says = turn.role === "user" ? "Send" : "Save";
  const saves = element("button.primary", { type: "submit" }, says);
  const cancel = element("button", { onclick: end }, "Cancel");
  const form = element("form", area, element("div.row", saves, cancel));
  submitting(form, save);
  area.addEventListener("keydown", (event) => {
    const isSaved = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (isSaved || (event.key === "Escape" && !event.isComposing)) {
      event.preventDefault();
      (isSaved ? save : end)();
    }
  });
  growing(area);
  return form;
}
