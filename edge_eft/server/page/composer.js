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
  const area = element("textarea", {
    id: "message",
    class: "composer-text",
    rows: 1,
    placeholder: "Message",
    "aria-label": "Message",
    "aria-describedby": "composer-hint",
    enterkeyhint: "send",
  });
  const sends = element("button", { class: "primary composer-send", text: "Send" });
  const stops = element("button", { class: "composer-send", type: "button", text: "Stop" });
  const hint = element("p", { class: "composer-hint", id: "composer-hint" });
  root.append(element("div", { class: "composer-row" }, area, sends, stops), hint);
  const fit = growing(area);

  function draw() {
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

  async function submit() {
    const text = area.value.trim();
    if (text && app.models.length && !app.generation) {
      area.value = "";
      write(area, app);
      fit();
      draw();
      await send(app, text);
    }
  }

  root.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
      event.preventDefault();
      submit();
    }
  });
  area.addEventListener("input", () => {
    write(area, app);
    draw();
  });
  stops.addEventListener("click", () => app.generation?.stop());
  addEventListener("keydown", (event) => {
    const isOurs = event.key === "Escape" && !event.defaultPrevented && !event.isComposing;
    if (isOurs && app.generation && !document.querySelector("dialog[open]")) {
      app.generation.stop();
    }
  });
  app.on("conversation", () => {
    const text = read(app);
    area.value = area.value === text ? area.value : text;
    fit();
    draw();
  });
  app.on("models generation turns", draw);
  draw();
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
