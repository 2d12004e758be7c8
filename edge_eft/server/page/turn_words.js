/** What is said of a turn, in a line. */

import { counted, share, speed } from "./numbers.js";
import { inWords, sameWeights, weightsAt } from "./weights.js";

const TOO_LONG = "context_length_exceeded"; // the server's code

/** @typedef {import("./tree.js").Turn} Turn */

/**
 * How a reply ended, where that is not by its own end; "" if it is.
 * @param {Turn} turn
 */
export function noticeOf({ state, problem, code, text, reasoning, body }) {
  const kept = text || reasoning ? " What came is kept." : "";
  switch (state) {
    case "stopped":
      return "Stopped.";
    case "length":
      return body?.max_tokens
        ? `It is as long as Max tokens allows: ${counted(body.max_tokens, "token")}.`
        : "The context is full.";
    case "cut":
      return `Cut: ${problem || "the connection was lost"}.${kept}`;
    case "failed":
      return code === TOO_LONG
        ? `Too long for the context: ${problem}. Begin a new conversation, or shorten this one.`
        : `Refused: ${problem}`;
    default:
      return "";
  }
}

/** Whether a reply can go on, or be asked for once more. */
export function canGoOn(turn) {
  return ["stopped", "length", "cut", "failed"].includes(turn.state) && !isFull(turn);
}

/** Whether the conversation has no room for what it wants to say. */
export function isFull({ state, body, code }) {
  return (state === "length" && !body?.max_tokens) || (state === "failed" && code === TOO_LONG);
}

/** The weights that a reply began with, and those behind what it took from another. */
export function startOf({ marks, n_given }, deltas) {
  const [first, next] = [0, n_given ?? 0].map((at) => weightsAt(marks, at));
  const words = inWords(first, deltas);
  return sameWeights(first, next, deltas) ? words : `${words}, then ${inWords(next, deltas)}`;
}

/** Where a reply has what it began with, and what is not known of it; "" for most. */
export function originOf(turn, isUnknown) {
  const isEmpty = !turn.text && !turn.reasoning;
  const parts = [turn.from && taken(turn)];
  parts.push(isUnknown && !isEmpty && "nothing was asked about its tokens");
  return parts.filter(Boolean).join("; ");
}

function taken({ n_given: n, chosen }) {
  if (n === undefined) {
    return "written by you";
  }
  if (chosen === undefined) {
    return n ? `begins with ${counted(n, "token")} of another version` : "replayed from its start";
  }
  const more = n > 1 ? `${counted(n - 1, "token")} of another version, then ` : "";
  return `begins with ${more}“${chosen}” as you chose`;
}

export function figuresOf({ timings, n_tokens, body }) {
  const { predicted_n, predicted_per_second: rate, draft_n, draft_n_accepted } = timings ?? {};
  const n = n_tokens || predicted_n; // that one leaves out what was there before
  return [
    n && counted(n, "token"),
    rate && speed(rate),
    draft_n && `${share(draft_n_accepted, draft_n)} of drafts right`,
    body?.seed !== undefined && `seed\u00a0${body.seed}`,
  ]
    .filter(Boolean)
    .join(" · ");
}
