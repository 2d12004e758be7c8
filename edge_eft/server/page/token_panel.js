/** What is known of one token: what each model would have said, and how the sum came about. */

import { element } from "./dom.js";
import { change, displaced, inWordsOf, percent, ranked } from "./token_math.js";
import { rounded, signed, standing, sumOf } from "./token_math.js";
import { inWords, mainDelta, weightsAt } from "./weights.js";

const DRAFTED = {
  true: "The small tuned model had drafted it, and the draft was accepted.",
  false: "The small tuned model had drafted another token, which was refused.",
  null: "Not drafted.",
};
const HINT = "Point at a token, or move with the arrow keys. A click or Enter keeps it here.";
const UNKNOWN = "What each model would have said instead is not known of this token.";

/** @typedef {import("./token_math.js").Candidate} Candidate */
export class TokenPanel {
  #delta = ""; // whose models are shown, where there are several
  /** @type {any} */
  #shown = {};

  /**
   * @param {HTMLElement} root
   * @param {{
   *   onContinue?: (index: number, candidate: Candidate) => void,
   *   onReplay?: (index: number, weights: Object) => void, onClose?: () => void,
   * }} actions  without one, there is no button for it
   */
  constructor(root, actions = {}) {
    this.root = root;
    this.actions = actions;
  }

  /**
   * Show what is known of a token.
   * @param {import("./token_math.js").Reply} reply
   * @param {number} index
   */
  show(reply, index, { pinned = false } = {}) {
    const isSame = this.#shown.reply === reply && this.#shown.index === index;
    const replay = isSame && this.root.querySelector(".token-replay"); // someone may type there
    const top = isSame ? this.root.scrollTop : 0;
    this.#shown = { reply, index, pinned };
    const token = reply.tokens[index];
    const weights = weightsAt(reply.marks, index);
    const place = `${index + 1} of ${reply.tokens.length}${pinned ? ", kept" : ""}`;
    const parts = [this.#head(element("code", { text: standing(token.text) }), place)];
    parts.push(facts(token));
    if (token.candidates?.length) {
      parts.push(this.#emulated(reply, index, weights), this.#models(reply, token));
    } else {
      parts.push(element("p.token-note.quiet", UNKNOWN));
    }
    if (this.actions.onReplay) {
      parts.push(replay || this.#replay(index, weights));
    }
    this.root.replaceChildren(...parts);
    this.root.scrollTop = top;
  }

  /** Say how a token is looked at. */
  showHint() {
    this.#shown = {};
    const hint = element("p.token-note.quiet", HINT);
    this.root.replaceChildren(this.#head("Token", ""), hint);
  }

  #head(name, place) {
    const { onClose } = this.actions;
    const close = { class: "plain icon", "aria-label": "Close", text: "✕" };
    return element(
      "div.token-head",
      element("h2", name),
      element("span.quiet", place),
      onClose ? element("button", { ...close, onclick: () => onClose() }) : null,
    );
  }

  /** The emulation's own likeliest, each with its sum, and a way on from it. */
  #emulated(reply, index, weights) {
    const token = reply.tokens[index];
    const best = ranked(token, "emulated");
    const taken = token.candidates.filter((one) => one.id === token.id && !best.includes(one));
    const words = inWords(weights, reply.deltas);
    const name = weights.only === undefined ? `Emulated, ${words}` : capital(words);
    const table = likeliest(name, "emulated", [...best, ...taken], token, (one) => {
      const sum = element("td", { colspan: 3 }, sumOfWords(one, weights, reply.deltas));
      const { onContinue } = this.actions;
      if (onContinue && one.id !== token.id) {
        const says = { text: "Continue from this" };
        const label = `Continue from this: ${standing(one.text)}`;
        const act = { "aria-label": label, onclick: () => onContinue(index, one) };
        sum.append(element("button", { ...says, ...act }));
      }
      return [element("tr.token-sum", sum)];
    });
    const note = element("p.token-note.quiet", { text: formula(weights) });
    return element("section.token-part", table, note);
  }

  #models(reply, token) {
    const names = Object.keys(reply.deltas).filter((name) => `tuned:${name}` in token.logprobs);
    const weighed = Object.fromEntries(names.map((name) => [name, reply.deltas[name]]));
    const delta = names.includes(this.#delta) ? this.#delta : mainDelta(weighed);
    const part = element("section.token-part.token-models");
    if (names.length > 1) {
      part.append(this.#deltas(names, delta));
    }
    const roles = { Base: "base", Tuned: `tuned:${delta}`, Reference: `reference:${delta}` };
    for (const [name, role] of Object.entries(roles)) {
      if (role in token.logprobs) {
        part.append(likeliest(name, role, ranked(token, role), token));
      }
    }
    return part;
  }

  #deltas(names, shown) {
    const choice = element("select", {
      onchange: () => {
        this.#delta = choice.value;
        this.show(this.#shown.reply, this.#shown.index, this.#shown);
        this.root.querySelector("select").focus();
      },
    });
    choice.append(...names.map((name) => new Option(name, name, false, name === shown)));
    return element("label", "Models of the delta ", choice);
  }

  #replay(index, { beta, mix, alpha = 1, only }) {
    const [dial, sign] = beta === undefined ? ["alpha", "α"] : ["beta", "β"];
    const strength = only === undefined ? (beta ?? alpha) : 0;
    const value = strength ? Math.round(strength * 50) / 100 : 1; // half shows a difference
    const range = { type: "number", min: 0, max: 2, step: "any", required: true, value };
    const field = element("input", { ...range, "aria-label": `${sign} of the replay` });
    const onsubmit = (event) => {
      event.preventDefault();
      this.actions.onReplay(index, { [dial]: Number(field.value), ...(mix ? { mix } : {}) });
    };
    const says = element("button", { type: "submit" }, `Replay from here with ${sign} =`);
    return element("form.token-replay.row", { autocomplete: "off", onsubmit }, says, field);
  }
}

/** In sentences: how much likelier, whether another first choice, whether drafted. */
function facts(token) {
  const { emulated, base } = token.logprobs;
  const lines = [DRAFTED[token.drafted ?? "null"]];
  const other = displaced(token);
  if (other) {
    lines.unshift(`The base's first choice was ${standing(other.text)}.`);
  }
  if (emulated !== undefined && base !== undefined) {
    const words = inWordsOf(change(token));
    const than = words === "about as likely" ? "as" : "than";
    const shares = `${percent(base)} → ${percent(emulated)}`;
    lines.unshift(`${capital(words)} ${than} under the base alone: ${shares}.`);
  }
  return element("ul.token-facts", ...lines.map((text) => element("li", { text })));
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

/** Candidates with bars and percentages; `more` gives the rows that follow one's. */
function likeliest(name, role, candidates, { id }, more = () => []) {
  const rows = candidates.flatMap((one) => {
    const logprob = one.logprobs[role];
    const bar = element("span.token-bar");
    bar.style.width = `${100 * Math.exp(logprob)}%`;
    const taken = one.id === id ? element("span", "taken") : null;
    const row = element(
      "tr",
      { class: taken ? "is-taken" : null },
      element("th", { scope: "row" }, element("code", { text: standing(one.text) }), taken),
      element("td", bar),
      element("td", { text: percent(logprob) }),
    );
    return [row, ...more(one)];
  });
  const head = ["Token", "Bar", "Share"].map((text) => element("th", { scope: "col", text }));
  return element(
    "table.token-likeliest",
    element("caption", name),
    element("thead.hidden", element("tr", ...head)),
    element("tbody", ...rows),
  );
}

/** How the log-probability came: −1.20 + 0.5 · 3.40 − 0.11 = 0.39. */
function sumOfWords(candidate, weights, deltas) {
  const exact = sumOf(candidate, weights, deltas);
  if (!exact) {
    return weights.only === undefined ? "ruled out by one of the models" : "";
  }
  const sum = rounded(exact);
  const inner = (value) => (value < 0 ? `(${signed(value)})` : signed(value));
  const terms = sum.terms.map(([factor, value], i) => {
    const times = factor === 1 ? "" : `${Math.round(factor * 1000) / 1000} · `;
    return times || i ? `${times}${inner(value)}` : signed(value);
  });
  const rest = `${sum.logZ < 0 ? "+" : "−"} ${signed(Math.abs(sum.logZ))}`;
  return `${terms.join(" + ")} ${rest} = ${signed(sum.total)}`;
}

function formula({ beta, only }) {
  if (only !== undefined) {
    return "One model alone: no sum.";
  }
  return beta === undefined
    ? "log p = log p base + α · δ − log Z, where δ = log p tuned − log p reference"
    : "log p = log p tuned + β · (log p base − log p reference) − log Z";
}
