/** A menu that opens at a button. */

import { element } from "./dom.js";

const STEPS = { ArrowDown: 1, ArrowUp: -1 };

/**
 * Open it: arrows move, Enter chooses, Escape and a click elsewhere close it.
 * @param {HTMLElement} button
 * @param {[string, () => void][]} actions
 */
export function openMenu(button, actions) {
  const items = actions.map(([text, act]) =>
    element("button.plain", {
      role: "menuitem",
      tabindex: "-1",
      text,
      onclick: () => (menu.hidePopover(), act()),
    }),
  );
  const menu = element(
    "div.menu",
    {
      role: "menu",
      popover: "auto",
      "aria-label": button.ariaLabel,
      onkeydown: (event) => {
        const at = items.indexOf(document.activeElement);
        const ends = { Home: 0, End: items.length - 1, Tab: -1 };
        const to = ends[event.key] ?? (at + STEPS[event.key] + items.length) % items.length;
        if (event.key === "Tab") {
          menu.hidePopover();
        } else if (items[to]) {
          event.preventDefault();
          items[to].focus();
        }
      },
      ontoggle: ({ newState }) => newState === "closed" && menu.remove(),
    },
    ...items,
  );
  document.body.append(menu);
  menu.showPopover();
  const { left, bottom } = button.getBoundingClientRect();
  menu.style.left = `${Math.max(4, Math.min(left, innerWidth - menu.offsetWidth - 4))}px`;
  menu.style.top = `${Math.max(4, Math.min(bottom + 2, innerHeight - menu.offsetHeight - 4))}px`;
  items[0].focus();
}
