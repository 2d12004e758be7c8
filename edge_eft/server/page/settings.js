/** How replies are drawn; null is the server's own default. */

import { recall } from "./kept.js";

export const DEFAULTS = {
  system: "",
  temperature: null,
  top_p: null,
  top_k: null,
  min_p: null,
  repetition_penalty: null,
  presence_penalty: null,
  frequency_penalty: null,
  seed: null, // another each time
  max_tokens: null, // as long as the context
  stop: [],
  draft: "auto",
  explain: true, // whether each token tells what each model thought of it
};

/** The settings that a conversation begins with: those that were chosen last in this browser. */
export function startSettings() {
  try {
    return { ...DEFAULTS, ...JSON.parse(recall("settings") || "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}
