/** Elements, made in one call. */

/**
 * Make an element: `element("button.plain", { onclick: copy }, "Copy")`.
 * @param {string} tag  with its classes; a button submits only where its type says so
 * @param {...any} parts  first, if there are any: attributes (true: without a value; false, null:
 *   not set; of `aria-…` true and false are words), `text`, and listeners by `on…`; then the
 *   children, of which null and false are left out
 * @returns {any}  the element
 */
export function element(tag, ...parts) {
  const options = parts[0]?.constructor === Object ? parts.shift() : {};
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (name === "button") {
    made.type = "button";
  }
  if (classes.length) {
    made.className = classes.join(" ");
  }
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") {
      made.textContent = value ?? "";
    } else if (name.startsWith("on")) {
      made.addEventListener(name.slice(2), value);
    } else {
      setAttribute(made, name, value);
    }
  }
  made.append(...parts.filter((child) => child !== null && child !== false));
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
async function copyText(text) {
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

const COPIED = 1500; // ms that a button says so

/**
 * Have a button copy a text, and say for a moment whether that worked.
 * @param {HTMLElement} button  which says "Copy"
 * @param {() => string} textOf
 * @param {string} failed  what it says if it did not
 * @param {(said: string) => void} [told]
 */
export function copying(button, textOf, failed, told = () => {}) {
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(textOf())) ? "Copied" : failed;
    told(button.textContent);
    setTimeout(() => (button.textContent = "Copy"), COPIED);
  });
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
