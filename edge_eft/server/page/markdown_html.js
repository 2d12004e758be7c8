/** Markdown that has been read becomes HTML, which is sanitised, and dressed. */

import { copying, element } from "./dom.js";
import { Parser, Renderer, getDefaults } from "./vendor/marked.js";
import DOMPurify from "./vendor/purify.js";

const PROTOCOLS = ["http:", "https:", "mailto:"];
const ALLOWED = {
  ALLOWED_TAGS: [
    ...["p", "br", "h3", "h4", "h5", "h6", "hr", "blockquote", "ul", "ol", "li", "pre", "code"],
    ...["table", "thead", "tbody", "tr", "th", "td", "strong", "em", "del", "a"],
  ],
  ALLOWED_ATTR: ["href", "align", "start", "class"],
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/iu,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
DOMPurify.addHook("uponSanitizeAttribute", (_, attribute) => {
  if (attribute.attrName === "class" && !/^language-\S+$/u.test(attribute.attrValue)) {
    attribute.keepAttr = false;
  }
});

/**
 * The elements of a token of marked's, sanitised.
 * @param {Object} token
 * @returns {DocumentFragment}
 */
export function toHtml(token) {
  const html = new Parser({ ...getDefaults(), renderer: new Writer() }).parse([token]);
  return DOMPurify.sanitize(html, ALLOWED);
}

/**
 * One element of what `toHtml` gave: links that say where they lead, code with a button to copy it,
 * wide things that scroll by themselves.
 * @param {DocumentFragment} fragment
 * @returns {HTMLElement}
 */
export function fromHtml(fragment) {
  for (const link of fragment.querySelectorAll("a")) {
    Object.assign(link, { target: "_blank", rel: "noopener noreferrer", title: link.href });
  }
  for (const table of fragment.querySelectorAll("table")) {
    const scrolls = { class: "scrolls", tabindex: 0, role: "group", "aria-label": "Table" };
    const around = element("div", scrolls);
    table.replaceWith(around);
    around.append(table);
  }
  fragment.querySelectorAll("pre").forEach(dress);
  const alone = fragment.childElementCount === 1;
  return alone ? fragment.firstElementChild : element("div", fragment);
}

/** The text of a block of code, without the end of its last line. */
export function codeOf({ text }) {
  return text.replace(/\n$/u, "");
}

function escaped(text) {
  const entities = { "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;", "&": "&amp;" };
  return text.replace(/[<>"'&]/gu, (found) => entities[found]);
}

/** HTML in a link; where a model may not lead to the address, the HTML with the address. */
function linked(html, href) {
  const address = href.replaceAll("&amp;", "&");
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url && PROTOCOLS.includes(url.protocol)) {
    return `<a href="${escaped(url.href)}">${html || escaped(url.href)}</a>`;
  }
  return html === escaped(href) ? html : `${html} (${escaped(href)})`;
}

class Writer extends Renderer {
  heading({ tokens, depth }) {
    const level = Math.min(6, depth + 2); // below those of the page
    return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
  }

  code(token) {
    const language = /^\S+/u.exec(token.lang ?? "");
    const named = language ? ` class="language-${escaped(language[0])}"` : "";
    return `<pre><code${named}>${escaped(codeOf(token))}</code></pre>`;
  }

  checkbox({ checked }) {
    return checked ? "☑ " : "☐ ";
  }

  link({ href, tokens }) {
    const html = this.parser.parseInline(tokens);
    return linked(html.replace(/<\/?a\b[^>]*>/gu, ""), href); // an image in it was one, too
  }

  image({ href, text }) {
    return linked(escaped(text), href);
  }

  text({ tokens, text }) {
    // Named characters are what they are in Markdown; the reader has seen to the numbered ones.
    const named = /&amp;([a-z][a-z\d]*;)/giu;
    return tokens ? this.parser.parseInline(tokens) : escaped(text).replace(named, "&$1");
  }
}

/** Put a block of code below its language's name and a button that copies it. */
function dress(pre) {
  const code = pre.firstElementChild;
  const language = code.className.replace("language-", "");
  const button = element("button", { class: "plain", text: "Copy" });
  button.setAttribute("aria-live", "polite");
  const unmarked = () => {
    const copy = code.cloneNode(true);
    copy.querySelectorAll(".mark").forEach((mark) => mark.remove());
    return copy.textContent;
  };
  copying(button, unmarked, "Not copied");
  const name = element("span", language);
  const block = element("div.code", element("div", name, button));
  pre.replaceWith(block);
  block.append(pre);
  pre.tabIndex = 0; // what scrolls is reached by keys
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
}
