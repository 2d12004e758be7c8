/**
 * A model's Markdown as elements. Its HTML stays text, its images become links, and a link says
 * where it leads. Of a text that grows, only the blocks that change are read and made again.
 */

import { element, place } from "./dom.js";
import { codeOf, fromHtml, toHtml } from "./markdown_html.js";
import { showMarks, sign } from "./markdown_marks.js";
import { Lexer, Tokenizer, getDefaults } from "./vendor/marked.js";

// What is not seen, or makes other text be seen as it is not: controls, overrides of the direction,
// lone surrogates, tags (but for the flags made of them), and the last private plane (the signs of
// markdown_marks.js).
const CONTROLS = "\\0-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f";
const UNSEEN = new RegExp(
  `\\r\\n?|(\\u{1f3f4}[\\u{e0030}-\\u{e007a}]{1,6}\\u{e007f})|[${CONTROLS}\\p{Cs}` +
    "\\u202a-\\u202e\\u2066-\\u2069\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}\\u{100000}-\\u{10ffff}]",
  "gu",
);

const SLOW = 16; // ms: a frame

/** What is shown in an element, and of what. */
const shown = new WeakMap();
const NOTHING = { source: "", labels: "[]", links: null, blocks: [], resume: 0, later: 0 };

/**
 * A piece of a text between blank lines, roughly: what the reader made of it, and its marks.
 * @typedef {{token: Object, start: number, end: number, marks: {at: number, label: string}[],
 *   key?: string, shown?: ?HTMLElement}} Block
 */

/**
 * Show a text in an element, which nothing else draws into.
 * @param {HTMLElement} root
 * @param {string} text
 * @param {{marks?: {offset: number, label: string}[], streaming?: boolean}} options
 *   marks: labels that are shown before these characters of the text, the first one first;
 *   streaming: more of the text is to come, so that one which is slow to read may wait for it
 */
export function renderMarkdown(root, text, { marks = [], streaming = false } = {}) {
  const known = shown.get(root) ?? NOTHING;
  const began = performance.now();
  clearTimeout(known.later);
  if (streaming && began < known.resume) {
    // The text may come no further for a while: what waits is shown all the same.
    const again = () => renderMarkdown(root, text, { marks, streaming });
    known.later = setTimeout(again, known.resume - began);
    return;
  }
  const { source, waiting } = cleaned(text, marks);
  const labels = JSON.stringify(marks);
  const goesOn = labels === known.labels && !known.links && source.startsWith(known.source);
  const { blocks, links } = read(source, goesOn ? settled(known) : []);
  distribute(waiting, blocks);
  blocks.forEach((block, index) => {
    if (block.shown === undefined) {
      const old = known.blocks[index];
      block.key = JSON.stringify([block.token.type, block.token.raw, block.marks, links]);
      block.shown = block.key === old?.key ? old.shown : made(block, old);
    }
  });
  root.classList.add("markdown");
  place(root, blocks.map((block) => block.shown).filter(Boolean));
  const took = performance.now() - began;
  const resume = began + (took > SLOW ? 9 * took : 0);
  shown.set(root, { source, labels, links, blocks, resume, later: 0 });
}

/** The text, what is not seen of it made visible, and where the marks are in that. */
function cleaned(text, marks) {
  const waiting = [];
  let source = "";
  let from = 0;
  for (const { offset, label } of marks) {
    source += visible(text.slice(from, offset));
    from = Math.max(from, offset);
    waiting.push({ at: source.length, label });
  }
  return { source: source + visible(text.slice(from)), waiting };
}

function visible(text) {
  return text.replace(UNSEEN, (found, flag) => {
    const code = found.charCodeAt(0);
    if (flag || found[0] === "\r") {
      return flag ?? "\n";
    }
    return code < 32 ? String.fromCharCode(0x2400 + code) : code === 127 ? "␡" : "\ufffd";
  });
}

/** Reads HTML as text, and lets no number of a character name one that is not seen. */
class Reader extends Tokenizer {
  html() {}

  tag() {}

  inlineText(source) {
    const token = super.inlineText(source);
    return token && { ...token, text: visible(token.text) };
  }
}

/** Whether there is text in a block, and a mark can be there. */
function holdsText({ token }) {
  return !["space", "def", "hr"].includes(token.type);
}

/** The blocks that stay as they are, whatever comes: those before the last three with text. */
function settled({ source, blocks }) {
  const open = blocks.filter(holdsText).at(-3);
  const kept = blocks.slice(0, open ? blocks.indexOf(open) : 0);
  const last = kept.at(-1);
  // The reader does not promise that its pieces are the whole text.
  return last && source.slice(last.start, last.end) === last.token.raw ? kept : [];
}

/**
 * Read a text, of which the first blocks are known.
 * @returns {{blocks: Block[], links: ?Object}}  links: the addresses that stand by themselves
 */
function read(source, kept) {
  const rest = source.slice(kept.at(-1)?.end ?? 0);
  const options = { ...getDefaults(), breaks: true, tokenizer: new Reader() };
  const tokens = unlessTooDeep(
    () => new Lexer(options).lex(rest),
    () => [asWritten(rest)],
  );
  const links = Object.keys(tokens.links ?? {}).length ? tokens.links : null;
  if (kept.length && links) {
    return read(source, []); // what is above may use them
  }
  const blocks = [...kept];
  for (const token of tokens) {
    const start = blocks.at(-1)?.end ?? 0;
    blocks.push({ token, start, end: start + token.raw.length, marks: [] });
  }
  return { blocks, links };
}

/** A token of our own: text without Markdown. */
function asWritten(text) {
  return { type: "plain", raw: text, text };
}

/** What nests a thousand deep fills the stack, and is made otherwise. */
function unlessTooDeep(make, otherwise) {
  try {
    return make();
  } catch (error) {
    if (error instanceof RangeError) {
      return otherwise();
    }
    throw error;
  }
}

/** Give each mark to the block that it is in; or else to the next, or to the last. */
function distribute(waiting, blocks) {
  if (waiting.length && !blocks.some(holdsText)) {
    const start = blocks.at(-1)?.end ?? 0;
    blocks.push({ token: asWritten(""), start, end: start, marks: [] });
  }
  const last = blocks.findLast(holdsText);
  let given = 0;
  for (const block of blocks.filter(holdsText)) {
    const { start, end, key, marks } = block;
    given += marks.length; // of one that is known
    while (!key && given < waiting.length && (waiting[given].at < end || block === last)) {
      const { at, label } = waiting[given];
      marks.push({ at: Math.max(0, at - start), label });
      given += 1;
    }
  }
}

/** The element of a block; null for one of which nothing is seen. */
function made(block, old) {
  const { token, marks } = block;
  if (token.type === "space" || token.type === "def") {
    return null;
  }
  if (hasGrown(block, old)) {
    return old.shown;
  }
  return unlessTooDeep(
    () => {
      sign(token, marks);
      const isPlain = token.type === "plain";
      const content = isPlain ? element("p.plain", { text: token.text }) : toHtml(token);
      showMarks(content, marks);
      const shown = isPlain ? content : fromHtml(content);
      shown.dir = shown.matches(".code") ? "ltr" : "auto";
      return shown;
    },
    () => made({ ...block, token: asWritten(token.raw) }),
  );
}

/** Whether code that has only become longer could be added to, so that a selection in it stays. */
function hasGrown({ token, marks }, old) {
  const before = old?.token;
  if (token.type !== "code" || before?.type !== "code" || token.lang !== before.lang) {
    return false;
  }
  const text = old.shown.querySelector("code")?.firstChild;
  const code = codeOf(token);
  if (!text || marks.length || old.marks.length || !code.startsWith(text.data)) {
    return false;
  }
  text.appendData(code.slice(text.data.length));
  return true;
}
