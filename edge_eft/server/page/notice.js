/** A line that stays until it is put away, with something that can be done about it. */

import { element } from "./dom.js";

/**
 * @param {import("./app.js").App} app
 * @param {() => void} next  moves the focus when the line is put away
 */
export function makeNotice(app, next) {
  const root = element("div.sidebar-notice", { hidden: true });

  /**
   * @param {string[]} lines  none: nothing is said any more
   * @param {[string, () => void]} [action]  its name, and what it does
   */
  function tell(lines, action) {
    const button = (options, act) =>
      element("button", { ...options, onclick: () => ((root.hidden = true), act()) });
    const away = { class: "plain icon", text: "✕", "aria-label": "Put away" };
    root.hidden = lines.length === 0;
    root.replaceChildren(
      element("div", ...lines.map((text) => element("p", { text }))),
      action ? button({ text: action[0] }, action[1]) : "",
      button(away, next),
    );
    if (lines.length) {
      app.announce(lines.join(" "));
    }
  }

  return { root, tell };
}
