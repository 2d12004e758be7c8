/** What is known of one token: what each model would have said, and how the emulation's sum came. */

import { element } from "./dom.js";
import {
  change,
  displaced,
  inWordsOf,
  percent,
  ranked,
  signed,
  standing,
  sumOf,
  weightsAt,
} from "./token_math.js";
import { tokenLegend } from "./token_view.js";
import { inWords, mainDelta } from "./weights.js";

/**
 * @typedef {import("./token_math.js").Reply} Reply
 * @typedef {import("./token_math.js").Candidate} Candidate
 * @typedef {import("./tree.js").Weights} Weights
 */
export class TokenPanel {
  #delta = null; // the one whose models are shown, where there are several
  #shown = null;

  /**
   * @param {HTMLElement} root
   * @param {{
   *   onContinue?: (index: number, candidate: Candidate) => void,
   *   onReplay?: (index: number, weights: Weights) => void, onClose?: () => void,
   * }} options  without one, there is no button for it
   */
  constructor(root, { onContinue, onReplay, onClose } = {}) {
    this.root = root;
    this.onContinue = onContinue;
    this.onReplay = onReplay;
    this.onClose = onClose;
  }

  /**
   * Show what is known of a token.
   * @param {Reply} reply
   * @param {number} index
   * @param {{pinned?: boolean}} options
   */
  show(reply, index, { pinned = false } = {}) {
    const token = reply.tokens[index];
    const kept = this.#shown?.reply === reply && this.#shown.index === index;
    const replay = kept ? this.root.querySelector(".token-replay") : null; // someone may type there
    this.#shown = { reply, index, pinned };
    const weights = weightsAt(reply, index);
    const parts = [this.#head(token, index, pinned), facts(reply, index, weights)];
    if (token.candidates?.length) {
      parts.push(this.#emulated(reply, index, weights), this.#models(reply, token));
    } else {
      const text = "What each model would have said instead is not known of this token.";
      parts.push(element("p", { class: "token-note", text }));
    }
    if (this.onReplay) {
      parts.push(replay ?? this.#replay(index, weights));
    }
    const top = this.root.scrollTop;
    this.root.replaceChildren(...parts);
    this.root.scrollTop = kept ? top : 0;
  }

  /** Say how a token is looked at, and what the shades mean. */
  showHint() {
    this.#shown = null;
    const text = "Point at a token, or move with the arrow keys. A click or Enter keeps it here.";
    this.root.replaceChildren(
      element(
        "div",
        { class: "token-head" },
        element("h2", { text: "Token" }),
        ...this.#closeButton(),
      ),
      element("p", { class: "token-note", text }),
      tokenLegend(),
    );
  }

  #head(token, index, pinned) {
    const n = this.#shown.reply.tokens.length;
    const about = `${index + 1} of ${n}${pinned ? ", kept" : ""}`;
    return element(
      "div",
      { class: "token-head" },
      element("h2", {}, element("code", { text: standing(token.text) })),
      element("span", { class: "token-place", text: about, title: `id ${token.id}` }),
      ...this.#closeButton(),
    );
  }

  #closeButton() {
    const close = { class: "plain icon", "aria-label": "Close", text: "✕" };
    return this.onClose ? [element("button", { ...close, onclick: () => this.onClose() })] : [];
  }

  /** The emulation's own likeliest, each with its sum. */
  #emulated(reply, index, weights) {
    const token = reply.tokens[index];
    const list = element("ol", { class: "token-sums" });
    const best = ranked(token, "emulated");
    const own = token.candidates.find(({ id }) => id === token.id);
    const rows = !own || best.includes(own) ? best : [...best, own];
    for (const one of rows) {
      const chosen = one.id === token.id;
      const parts = [chance(one, "emulated", chosen), sumLine(one, weights, reply.deltas)];
      if (this.onContinue && !chosen) {
        const name = standing(one.text);
        parts.push(
          element("button", {
            class: "token-continue",
            "aria-label": `Continue from this: ${name}`,
            text: "Continue from this",
            onclick: () => this.onContinue(index, one),
          }),
        );
      }
      list.append(element("li", {}, ...parts));
    }
    return element(
      "section",
      { class: "token-part" },
      element("h3", { text: `Emulated, ${inWords(weights, reply.deltas)}` }),
      list,
      element("p", { class: "token-note", text: formula(weights) }),
    );
  }

  /** What base, tuned and reference have as their likeliest. */
  #models(reply, token) {
    const names = Object.keys(reply.deltas).filter((name) => `tuned:${name}` in token.logprobs);
    const main = names.includes(this.#delta) ? this.#delta : mainOf(names, reply.deltas);
    const roles = ["base", `tuned:${main}`, `reference:${main}`];
    const tables = roles.filter((role) => role in token.logprobs).map((role) => {
      return likeliest(token, role, role.split(":")[0]);
    });
    const head = element("div", { class: "token-part-head" });
    head.append(element("h3", { text: "Each model by itself" }));
    if (names.length > 1) {
      head.append(this.#deltaChoice(names, main));
    }
    return element(
      "section",
      { class: "token-part" },
      head,
      element("div", { class: "token-models" }, ...tables),
    );
  }

  #deltaChoice(names, main) {
    const choice = element("select", { "aria-label": "Delta whose models are shown" });
    choice.append(...names.map((name) => new Option(name, name, false, name === main)));
    choice.addEventListener("change", () => {
      this.#delta = choice.value;
      const { reply, index, pinned } = this.#shown;
      this.show(reply, index, { pinned });
      this.root.querySelector(".token-part-head select")?.focus();
    });
    return choice;
  }

  #replay(index, weights) {
    const dial = weights.beta === undefined ? "alpha" : "beta";
    const sign = dial === "alpha" ? "α" : "β";
    const field = element("input", {
      type: "number",
      min: "0",
      max: dial === "alpha" ? "2" : null,
      step: "any",
      required: true,
      value: String(suggested(weights)),
      "aria-label": `${sign} of the replay`,
    });
    const form = element(
      "form",
      { class: "token-replay" },
      element("button", { text: `Replay from here with ${sign} =` }),
      field,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const mix = weights.mix ? { mix: weights.mix } : {};
      this.onReplay(index, { [dial]: Number(field.value), ...mix });
    });
    return form;
  }
}

/** A value that shows a difference: half of the strength, or the whole where there was none. */
function suggested({ alpha = 1, beta, only }) {
  const strength = beta ?? alpha;
  return only !== undefined || strength === 0 ? 1 : Math.round(strength * 50) / 100;
}

function mainOf(names, deltas) {
  return mainDelta(Object.fromEntries(names.map((name) => [name, deltas[name]])));
}

/** In sentences: how much likelier, whether another first choice, whether drafted. */
function facts(reply, index, weights) {
  const token = reply.tokens[index];
  const { emulated, base } = token.logprobs;
  const lines = [];
  if (emulated !== undefined && base !== undefined) {
    const nats = change(token);
    const words = inWordsOf(nats);
    const than = words === "about as likely" ? "as" : "than";
    lines.push(`${capital(words)} ${than} under the base alone: ${percent(base)} → ${percent(emulated)}.`);
  }
  const other = displaced(token);
  if (other) {
    lines.push(`The base's first choice was ${standing(other.text)}.`);
  }
  if (weights.only !== undefined) {
    lines.push(`Chosen by the ${inWords(weights, reply.deltas)}.`);
  }
  const drafted = new Map([
    [true, "The small tuned model had drafted it, and the draft was accepted."],
    [false, "The small tuned model had drafted another token, which was refused."],
  ]);
  lines.push(drafted.get(token.drafted) ?? "Not drafted.");
  return element("ul", { class: "token-facts" }, ...lines.map((text) => element("li", { text })));
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

/** A candidate's name, bar and percentage. */
function chance(candidate, role, chosen) {
  const logprob = candidate.logprobs[role];
  return element(
    "div",
    { class: chosen ? "token-chance is-chosen" : "token-chance" },
    element(
      "span",
      { class: "token-name" },
      element("code", { text: standing(candidate.text) }),
      ...(chosen ? [element("span", { class: "token-chosen", text: "taken" })] : []),
    ),
    bar(logprob),
    element("span", { class: "token-figure", text: percent(logprob) }),
  );
}

function bar(logprob = -Infinity) {
  const inner = element("span");
  inner.style.width = `${100 * Math.exp(logprob)}%`;
  return element("span", { class: "token-bar", "aria-hidden": "true" }, inner);
}

/** How the log-probability came: −1.20 + 0.5 · 3.40 − 0.11 = 0.39. */
function sumLine(candidate, weights, deltas) {
  const sum = sumOf(candidate, weights, deltas);
  const line = element("p", { class: "token-sum" });
  if (!sum) {
    line.textContent = weights.only === undefined ? "ruled out by one of the models" : "";
    return line;
  }
  const several = sum.terms.length > 2;
  const parts = sum.terms.map(({ factor, value, of }, i) => {
    const times = i && factor !== 1 ? `${round(factor)} · ` : "";
    const first = i === 0 && factor !== 1 ? `${round(factor)} · ` : "";
    const number = times && value < 0 ? `(${signed(value)})` : signed(value);
    const joint = i ? (times || value >= 0 ? " + " : " − ") : "";
    const shown = joint === " − " ? signed(-value) : number;
    return `${joint}${first}${times}${shown}${several ? ` ${of}` : ""}`;
  });
  const rest = `${sum.logZ >= 0 ? " − " : " + "}${signed(Math.abs(sum.logZ))}`;
  line.textContent = `${parts.join("")}${rest} = ${signed(sum.total)}`;
  return line;
}

function round(factor) {
  return String(Math.round(factor * 1000) / 1000);
}

/** What the numbers of a sum are. */
function formula({ beta, only }) {
  if (only !== undefined) {
    return "One model alone: no sum.";
  }
  return beta === undefined
    ? "log p = log p base + α · δ − log Z, where δ = log p tuned − log p reference."
    : "log p = log p tuned + β · (log p base − log p reference) − log Z.";
}

/** One model's likeliest tokens. */
function likeliest(token, role, name) {
  const rows = ranked(token, role).map((one) => {
    const chosen = one.id === token.id;
    const first = element("th", { scope: "row" }, element("code", { text: standing(one.text) }));
    if (chosen) {
      first.append(element("span", { class: "hidden", text: " (taken)" }));
    }
    return element(
      "tr",
      { class: chosen ? "is-chosen" : "" },
      first,
      element("td", {}, bar(one.logprobs[role])),
      element("td", { class: "token-figure", text: percent(one.logprobs[role]) }),
    );
  });
  const head = element(
    "thead",
    { class: "hidden" },
    element("tr", {}, ...["Token", "", "Share"].map((text) => element("th", { scope: "col", text }))),
  );
  return element(
    "table",
    { class: "token-likeliest" },
    element("caption", { text: capital(name) }),
    head,
    element("tbody", {}, ...rows),
  );
}
