/** The field in which a turn is written anew. */

import { element } from "./dom.js";
import { growing, submitting } from "./field.js";

/**
 * Ctrl+Enter saves, Escape leaves it as it was.
 * @param {string} text
 * @param {{says: string, onSave: (text: string) => void, onCancel: () => void}} options  `says`:
 *   the word on the button that saves
 * @returns {HTMLFormElement}
 */
export function turnEditor(text, { says, onSave, onCancel }) {
  const named = { class: "turn-area", "aria-label": "Text of the turn" };
  const area = element("textarea", { ...named, rows: 2 });
  area.value = text;
  const save = () => area.value.trim() && onSave(area.value);
  const saves = element("button.primary", { type: "submit" }, says);
  const cancel = element("button", { text: "Cancel", onclick: onCancel });
  const row = element("div.turn-editor-row", saves, cancel);
  const form = element("form", area, row);
  submitting(form, save);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      save();
    } else if (event.key === "Escape" && !event.isComposing) {
      event.preventDefault();
      onCancel();
    }
  });
  growing(area);
  return form;
}
