/** What is said of a turn, in a line. */

import { counted, share, speed } from "./numbers.js";

/** @typedef {import("./tree.js").Turn} Turn */

/**
 * How a reply ended, where that is not by its own end; "" if it is.
 * @param {Turn} turn
 */
export function noticeOf({ state, problem, text, reasoning, body }) {
  const kept = text || reasoning ? " What came is kept." : "";
  switch (state) {
    case "stopped":
      return "Stopped.";
    case "length":
      return body?.max_tokens
        ? `It is at the longest that was asked for, ${body.max_tokens} tokens.`
        : "It is at the end of the context, which holds no more.";
    case "cut":
      return `Cut: ${problem || "the connection was lost"}.${kept}`;
    case "failed":
      return `Refused: ${problem}`;
    default:
      return "";
  }
}

/** Whether a reply can go on, or be asked for once more. */
export function canGoOn({ state, body }) {
  const isFull = state === "length" && !body?.max_tokens;
  return ["stopped", "length", "cut", "failed"].includes(state) && !isFull;
}

/** Where a reply has what it began with, and what is not known of it; "" for most. */
export function originOf({ from, n_given: n }, isUnknown) {
  const given = n ? `its first ${n === 1 ? "token is" : `${n} tokens are`} of another reply` : "";
  const parts = [from && (given || (n === 0 ? "another reply, replayed" : "written by you"))];
  parts.push(isUnknown && "nothing was asked about its tokens");
  return parts.filter(Boolean).join("; ");
}

export function figuresOf({ timings, n_tokens, body }) {
  const {
    predicted_n: n = n_tokens,
    predicted_per_second: rate,
    draft_n,
    draft_n_accepted,
  } = timings ?? {};
  return [
    n && counted(n, "token"),
    rate && speed(rate),
    draft_n && `${share(draft_n_accepted, draft_n)} of drafts right`,
    body?.seed !== undefined && `seed\u00a0${body.seed}`,
  ]
    .filter(Boolean)
    .join(" · ");
}
