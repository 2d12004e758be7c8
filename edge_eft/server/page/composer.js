/** Where the next message is written. */

import { element } from "./dom.js";
import { send } from "./replies.js";

const DRAFT = "edge_eft.draft.";
const TALLEST = 0.4; // of the window

/** Let a field grow with its text. @param {HTMLTextAreaElement} area */
export function growing(area) {
  const fit = () => {
    area.style.height = "auto";
    const { borderTopWidth, borderBottomWidth } = getComputedStyle(area);
    const borders = parseFloat(borderTopWidth) + parseFloat(borderBottomWidth);
    area.style.height = `${Math.min(area.scrollHeight + borders, innerHeight * TALLEST)}px`;
  };
  area.addEventListener("input", fit);
  requestAnimationFrame(fit);
  return fit;
}

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
}

class Composer {
  constructor(app, root) {
    this.app = app;
    this.area = element("textarea", {
      id: "message",
      class: "composer-text",
      rows: 1,
      placeholder: "Message",
      "aria-label": "Message",
      "aria-describedby": "composer-hint",
      enterkeyhint: "send",
    });
    this.sends = element("button", { class: "primary composer-send", text: "Send" });
    const stop = () => app.generation?.stop();
    const plain = { class: "composer-send", type: "button" };
    this.stops = element("button", { ...plain, text: "Stop", onclick: stop });
    this.hint = element("p", { class: "composer-hint", id: "composer-hint" });
    const row = element("div", { class: "composer-row" }, this.area, this.sends, this.stops);
    root.append(row, this.hint);
    this.fit = growing(this.area);
    this.#listen(root);
  }

  #listen(root) {
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.area.addEventListener("keydown", (event) => {
      // 229: of a composition, in browsers that end it before they tell of the key.
      const isOurs = event.key === "Enter" && !event.shiftKey && event.keyCode !== 229;
      if (isOurs && !event.isComposing) {
        event.preventDefault();
        this.submit();
      }
    });
    this.area.addEventListener("input", () => {
      write(this.area, this.app);
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
    if (text && app.models.length && !app.generation) {
      area.value = "";
      write(area, app);
      this.fit();
      this.draw();
      send(app, text);
    }
  }

  /** Show what was not sent of the conversation that was opened. */
  restore() {
    const text = read(this.app);
    if (this.area.value !== text) {
      this.area.value = text;
    }
    this.fit();
    this.draw();
  }
}

/** The text that was not sent, of the open conversation; of one that begins, there is one. */
function read(app) {
  try {
    return localStorage.getItem(draftOf(app)) ?? "";
  } catch {
    return "";
  }
}

function write(area, app) {
  try {
    if (area.value) {
      localStorage.setItem(draftOf(app), area.value);
    } else {
      localStorage.removeItem(draftOf(app));
    }
  } catch {
    // There is no storage, or no room: the text is in the field.
  }
}

function draftOf({ tree }) {
  return DRAFT + (tree.turns.size ? tree.about.id : "new");
}
