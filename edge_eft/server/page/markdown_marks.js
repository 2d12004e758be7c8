/** Labels in a text. Each goes through the renderer as a sign that is set into what was read. */

import { element } from "./dom.js";

// Signs are of the last private plane of Unicode, which markdown.js takes out of a model's text.
const FIRST = 0x100000;
const SIGN = /([\u{100000}-\u{10ffff}])/u;

const TEXTS = ["text", "escape", "codespan", "code", "image", "plain"];

/**
 * Set the signs of marks into the texts that a token is made of, so that they change nothing of how
 * it was read. Where a mark is in what is not shown, it comes before the next text.
 * @param {Object} token  of marked's
 * @param {{at: number}[]} marks  at: of the token's source
 */
export function sign(token, marks) {
  const waiting = marks.map(({ at }, index) => ({ at, sign: String.fromCodePoint(FIRST + index) }));
  const source = token.raw;
  let cursor = 0;
  let last = null;
  const filled = (line) => {
    const start = Math.max(cursor, source.indexOf(line, cursor));
    cursor = start + line.length;
    let text = "";
    let from = 0;
    while (waiting.length && waiting[0].at < cursor) {
      const next = waiting.shift();
      const cut = Math.max(from, next.at - start);
      text += line.slice(from, cut) + next.sign;
      from = cut;
    }
    return text + line.slice(from);
  };
  const visit = (one) => {
    const raw = one.raw ?? one.text; // cells of a table have none
    const found = source.indexOf(raw.split("\n", 1)[0], cursor);
    cursor = found < 0 ? cursor : found + opening(one).length;
    const parts = partsOf(one);
    if (parts) {
      parts.forEach(visit);
    } else if (TEXTS.includes(one.type)) {
      one.text = one.text.split("\n").map(filled).join("\n");
      last = one;
    }
    if (found >= 0 && source.startsWith(raw, found)) {
      cursor = Math.max(cursor, found + raw.length); // past an address
    }
  };
  if (waiting.length) {
    visit(token);
  }
  if (last) {
    last.text += waiting.map((mark) => mark.sign).join("");
  }
}

/** What comes before the text of an item or of a block of code. */
function opening({ type, raw, codeBlockStyle }) {
  if (type === "list_item") {
    return /^ *(?:[*+-]|\d+[.)])[ \t]*(?:\[[ x]\][ \t]+)?/iu.exec(raw)[0];
  }
  return type === "code" && codeBlockStyle !== "indented" ? raw.split("\n", 1)[0] : "";
}

function partsOf({ type, items, header, rows, tokens }) {
  return type === "image" ? null : (items ?? (rows ? [...header, ...rows.flat()] : tokens));
}

/**
 * Show the labels where their signs are.
 * @param {Node} root
 * @param {{label: string}[]} marks
 */
export function showMarks(root, marks) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const signed = [];
  while (marks.length && walker.nextNode()) {
    if (SIGN.test(walker.currentNode.data)) {
      signed.push(walker.currentNode);
    }
  }
  for (const node of signed) {
    const parts = node.data.split(SIGN).map((part, index) => {
      const mark = index % 2 ? marks[part.codePointAt(0) - FIRST] : null;
      return mark ? element("span.mark", { text: mark.label }) : part;
    });
    node.replaceWith(...parts.filter((part) => part !== ""));
  }
}
