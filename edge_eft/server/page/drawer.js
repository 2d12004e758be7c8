/** A part of the page that is a drawer where there is no room for it. */

import { element, setAttribute } from "./dom.js";

/**
 * @param {HTMLElement} root
 * @param {HTMLElement} opener  the button that opens it
 * @returns {{close: () => void}}
 */
export function mountDrawer(root, opener) {
  const narrow = matchMedia("(max-width: 760px)");
  const name = `Close ${root.ariaLabel.toLowerCase()}`;
  const about = { hidden: true, "aria-label": name, onclick: close };
  const backdrop = element("button.drawer-backdrop", about);
  root.after(backdrop);
  const others = () => [...root.parentElement.children].filter((one) => one !== root);

  function show(isOpen) {
    root.classList.toggle("is-open", isOpen);
    setAttribute(opener, "aria-expanded", isOpen);
    backdrop.hidden = !isOpen;
    others().forEach((one) => (one.inert = isOpen && one !== backdrop));
  }

  function open() {
    show(true);
    (root.querySelector("[aria-current]") ?? root.querySelector("button")).focus();
  }

  function close() {
    if (root.classList.contains("is-open")) {
      show(false);
      opener.focus();
    }
  }

  opener.addEventListener("click", open);
  narrow.addEventListener("change", () => show(false));
  root.addEventListener("keydown", (event) => {
    const isTyped = event.target.type === "search" && event.target.value; // which Escape clears
    if (event.key === "Escape" && !isTyped && root.classList.contains("is-open")) {
      event.preventDefault(); // a reply that is coming goes on
      close();
    }
  });
  return { close };
}
