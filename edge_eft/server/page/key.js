/** Asks for the server's key, where it wants one. */

import { element } from "./dom.js";

let asked = null; // the answer that is awaited, of however many requests
let button = null;

/**
 * Ask the person, who may also not answer: null.
 * @param {boolean} wasRefused  whether a key was given that the server does not take
 * @returns {Promise<?string>}
 */
export function askForKey(wasRefused) {
  asked ??= ask(wasRefused).finally(() => (asked = null));
  return asked;
}

/** Wait until the person wants to be asked again. */
export function waitForKey() {
  return new Promise((resolve) => {
    button?.remove();
    const onclick = () => (button.remove(), resolve());
    button = element("button.primary", { text: "Enter the API key", onclick });
    document.querySelector(".bar").append(button);
  });
}

function ask(wasRefused) {
  const problem = wasRefused ? "The server does not take that key." : "";
  const input = element("input", {
    ...{ id: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false" },
    ...(wasRefused && { "aria-invalid": "true", "aria-describedby": "key-problem" }),
  });
  const about =
    "This server answers those who have its API key, the one that was set when it was started. " +
    "The key is kept in this tab until the tab is closed.";
  const dialog = element(
    "dialog.key",
    { "aria-labelledby": "key-title" },
    element(
      "form",
      { method: "dialog" },
      element("h2", { id: "key-title", text: "API key" }),
      element("p", about),
      element("label", { for: "key", text: "Key" }),
      input,
      element("p", { id: "key-problem", class: "is-bad", text: problem }),
      element(
        "div.row",
        element("button", { text: "Not now", onclick: () => dialog.close() }),
        element("button.primary", { type: "submit", value: "given" }, "Use it"),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "given" ? input.value.trim() || null : null);
    });
  });
}
