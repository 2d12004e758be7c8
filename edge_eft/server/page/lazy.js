/** Parts of the page that are loaded when they are first needed. */

const styles = new Map(); // name → the link's loading

/**
 * Load a module, and a style sheet with it; null where the server does not give them: the page
 * says so.
 * @param {() => Promise<any>} load  such as `() => import("./compare.js")`
 * @param {string} [style]  the sheet's name
 */
export async function part(load, style) {
  const line = document.getElementById("problem");
  try {
    const [module] = await Promise.all([load(), style && styled(style)]);
    line.hidden = true;
    return module;
  } catch (error) {
    if (!(error instanceof TypeError)) {
      throw error; // it came, and is wrong
    }
    line.textContent =
      "This part of the page could not be loaded: the server does not answer. " +
      "Once it does, try again, or load the page anew.";
    line.hidden = false;
    return null;
  }
}

function styled(name) {
  if (!styles.has(name)) {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: `/page/${name}` });
    const loaded = new Promise((resolve, reject) => {
      link.onload = resolve;
      link.onerror = () => (link.remove(), styles.delete(name), reject(new TypeError(name)));
    });
    styles.set(name, loaded);
    document.head.append(link);
  }
  return styles.get(name);
}
