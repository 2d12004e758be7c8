/** Where the next message is written. */

import { element } from "./dom.js";
import { entering, growing, submitting } from "./field.js";
import { recall, remember } from "./kept.js";
import { send } from "./replies.js";

const AT_A_DESK = "(min-width: 761px) and (not (pointer: coarse))"; // no keyboard covers the page

/**
 * @param {import("./app.js").App} app
 * @param {HTMLFormElement} root
 */
export function mountComposer(app, root) {
  const composer = new Composer(app, root);
  app.on("conversation", () => composer.restore());
  app.on("models generation turns", () => composer.draw());
  addEventListener("keydown", (event) => {
    const isOurs = event.key === "Escape" && !event.defaultPrevented && !event.isComposing;
    if (isOurs && app.generation && !document.querySelector("dialog[open], [popover]")) {
      app.generation.stop();
    }
  });
  composer.draw();
  if (matchMedia(AT_A_DESK).matches && document.activeElement === document.body) {
    composer.area.focus();
  }
}

class Composer {
  constructor(app, root) {
    this.app = app;
    this.area = element("textarea.composer-text", {
      ...{ id: "message", rows: 1, placeholder: "Message", enterkeyhint: "send" },
      ...{ "aria-label": "Message", "aria-describedby": "composer-hint" },
    });
    this.sends = element("button.primary.composer-send", { type: "submit" }, "Send");
    const stop = () => app.generation?.stop();
    this.stops = element("button.composer-send", { onclick: stop }, "Stop");
    this.hint = element("p.composer-hint", { id: "composer-hint" });
    const row = element("div.composer-row.row", this.area, this.sends, this.stops);
    root.append(row, this.hint);
    this.fit = growing(this.area);
    submitting(root, () => this.submit());
    entering(this.area);
    this.area.addEventListener("input", () => {
      remember(draftOf(app), this.area.value);
      this.draw();
    });
  }

  draw() {
    const { app, area, sends, stops, hint } = this;
    const isLoading = app.models.length === 0;
    const isComing = Boolean(app.generation);
    const hadFocus = document.activeElement === sends || document.activeElement === stops;
    sends.hidden = isComing;
    stops.hidden = !isComing;
    sends.disabled = isLoading || !area.value.trim();
    hint.classList.toggle("is-idle", !isLoading && !isComing);
    hint.textContent = isLoading
      ? "The models are being loaded; you can write meanwhile."
      : isComing
        ? "Escape stops the reply."
        : "Enter sends, Shift+Enter begins a new line.";
    if (hadFocus && document.activeElement !== area) {
      area.focus();
    }
  }

  submit() {
    const { app, area } = this;
    const text = area.value.trim();
    if (text && app.generation) {
      this.hint.textContent = "Escape stops the reply first; then Enter sends.";
      app.announce(this.hint.textContent);
    } else if (text && app.models.length) {
      area.value = "";
      remember(draftOf(app), "");
      this.fit();
      this.draw();
      send(app, text);
    }
  }

  /** Show what was not sent of the conversation that was opened. */
  restore() {
    this.area.value = recall(draftOf(this.app));
    this.fit();
    this.draw();
  }
}

/** The name of what was not sent, of the open conversation; of those that begin, there is one. */
function draftOf({ tree }) {
  return `draft.${tree.turns.size ? tree.about.id : "new"}`;
}
