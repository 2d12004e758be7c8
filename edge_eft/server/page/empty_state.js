/** What is shown before anything is said. */

import { element } from "./dom.js";
import { regenerate, send } from "./replies.js";
import { sameWeights, weightsAt } from "./weights.js";

const QUESTION = "What is the capital of Peru?";
const EXAMPLES = [
  { name: "Emulated", says: "the base, steered by the delta", dials: { alpha: 1 } },
  { name: "Base", says: "the large model alone, α 0", dials: { alpha: 0 } },
  { name: "Tuned alone", says: "the small tuned model", dials: { only: "tuned" } },
];

/**
 * Say in two sentences what this is, and let a visitor see it: one question, asked three ways.
 * @param {import("./app.js").App} app
 * @returns {HTMLElement}
 */
export function emptyState(app) {
  const ask = (dials) => {
    turn(app, dials);
    send(app, QUESTION);
  };
  const examples = EXAMPLES.map(({ name, says, dials }) => {
    const button = element(
      "button.empty-example",
      { onclick: () => ask(dials) },
      element("span.hidden", QUESTION),
      element("strong", name),
      element("span.quiet", says),
    );
    app.on("models", () => (button.disabled = false));
    button.disabled = app.models.length === 0;
    return button;
  });
  return element(
    "section.empty",
    { "aria-label": "What this is" },
    element("h2", "A large model, steered by a small one"),
    element("p", {
      text:
        "At every token the large base is moved by what tuning did to a small model: " +
        "base + α · (tuned − reference). Turn α while it writes, and look at any token " +
        "to see what each model wanted.",
    }),
    element("p", `“${QUESTION}”, asked three ways:`),
    element("div.empty-examples", ...examples),
  );
}

/** Turn the dials to an example's. */
function turn(app, dials) {
  app.dials = { ...app.dials, mode: "alpha", mix: null, only: null, ...dials };
  app.emit("dials");
}

/**
 * What stands below the reply to the examples' question: the other ways to ask it.
 * @param {import("./app.js").App} app
 * @returns {HTMLElement}
 */
export function askAgain(app) {
  const row = element("div.row.quiet", { hidden: true });
  const draw = () => {
    const [asked, reply, ...more] = app.tree.path();
    row.hidden = asked?.text !== QUESTION || !reply || more.length > 0 || Boolean(app.generation);
    if (row.hidden) {
      return;
    }
    const weights = weightsAt(reply.marks, 0);
    const others = EXAMPLES.filter(({ dials }) => !sameWeights(weights, dials, app.deltas));
    const again = (dials) => async () => {
      turn(app, dials);
      const generation = await regenerate(app, reply);
      const shown = document.getElementById(`turn-${generation.turn.id}`);
      shown?.focus({ preventScroll: true }); // the button is gone
    };
    const buttons = others.map(({ name, dials }) =>
      element("button", { "aria-label": `Ask again as ${name}`, onclick: again(dials) }, name),
    );
    row.replaceChildren("Ask again as", ...buttons);
  };
  app.on("turns generation models conversation", draw);
  return row;
}
