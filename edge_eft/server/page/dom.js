/** Elements, made in one call. */

/**
 * Make an element: `element("button", { class: "plain", text: "Copy", onclick: copy })`.
 * @param {string} tag
 * @param {Object} options  `class` and other attributes (true: without a value; false, null: not
 *   set; of `aria-…` true and false are words), `text`, and listeners by `on…`
 * @param {...(Node | string | null | false)} children  null and false are left out
 * @returns {any}  the element
 */
export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") {
      made.textContent = value ?? "";
    } else if (name.startsWith("on")) {
      made.addEventListener(name.slice(2), value);
    } else {
      setAttribute(made, name, value);
    }
  }
  made.append(...children.filter((child) => child !== null && child !== false));
  return made;
}

/** Set, or take away, an attribute by the rules of `element`. */
export function setAttribute(of, name, value) {
  const isWord = name.startsWith("aria-") && typeof value === "boolean";
  if (isWord) {
    of.setAttribute(name, String(value));
  } else if (value === null || value === undefined || value === false) {
    of.removeAttribute(name);
  } else {
    of.setAttribute(name, value === true ? "" : String(value));
  }
}

/**
 * Copy a text; where the page is not served securely the clipboard is reached the old way.
 * @param {string} text
 * @returns {Promise<boolean>}  whether it worked
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const from = document.activeElement;
    const area = element("textarea", { class: "hidden", "aria-hidden": true, tabindex: -1 });
    area.value = text;
    (from?.closest("dialog") ?? document.body).append(area);
    area.select();
    const worked = document.execCommand("copy");
    area.remove();
    from?.focus({ preventScroll: true });
    return worked;
  }
}

/** Put children into an element; those that stand right are not touched. */
export function place(parent, children) {
  const wanted = new Set(children);
  [...parent.children].filter((child) => !wanted.has(child)).forEach((child) => child.remove());
  children.forEach((child, i) => {
    if (parent.children[i] !== child) {
      parent.insertBefore(child, parent.children[i] ?? null);
    }
  });
}
