/** The panel beside the replies: what is known of the token that is looked at. */

import { continueFrom, replay } from "./branches.js";
import { tokensOf } from "./replies.js";
import { TokenPanel } from "./token_panel.js";

export { tokenLegend, TokenView } from "./token_view.js";

const BESIDE = "(min-width: 1151px)"; // where it is a column and not a sheet, as in style.css

/**
 * A turn's reply, as the views of tokens take it.
 * @param {import("./app.js").App} app
 * @param {import("./tree.js").Turn} turn
 * @param {import("./tree.js").Token[]} tokens
 * @returns {import("./token_math.js").Reply}
 */
export function replyOf(app, turn, tokens) {
  return {
    get deltas() {
      return app.deltasOf(turn.model); // they may become known meanwhile
    },
    tokens,
    get marks() {
      return turn.marks ?? [];
    },
  };
}

/**
 * Mount the panel. Where it is beside the text it is there as soon as tokens are shown, so that
 * pointing at one moves no line of it; a sheet comes when a token is asked for.
 */
export function mountPanel(app, root) {
  const beside = matchMedia(BESIDE);
  const compare = document.getElementById("compare");
  let picked = null; // {turn, index, pinned, view, adopt?}
  let closed = false; // by the person, until a token is asked for
  const panel = new TokenPanel(root, {
    onContinue: (index, candidate) => goFrom(continueFrom, index, candidate),
    onReplay: (index, weights) => goFrom(replay, index, weights),
    onClose: close,
  });

  function close() {
    const view = picked?.view;
    closed = true;
    app.emit("pick");
    view?.unpin(true);
  }

  /** Have another reply from the token on: it is that one, then, which is looked at. */
  async function goFrom(way, index, detail) {
    const { turn, adopt } = picked;
    app.emit("pick");
    await adopt?.(); // a reply of the comparison becomes a conversation before
    document.getElementById(`turn-${turn.id}`)?.focus({ preventScroll: true });
    await way(app, turn, index, detail);
  }

  async function show(pick) {
    picked = pick;
    const { turn, index, pinned, view } = pick;
    const tokens = view?.reply.tokens ?? (await tokensOf(app, turn));
    if (picked !== pick || !tokens[index]) {
      return;
    }
    root.hidden = false;
    panel.show(view?.reply ?? replyOf(app, turn, tokens), index, { pinned });
    if (pick.asked) {
      // The sheet took room from the text, whose end is then scrolled to where it was in sight.
      requestAnimationFrame(() => setTimeout(() => view?.reveal(index)));
    }
  }

  function rest() {
    picked = null;
    const isApart = app.view !== "tokens" || !compare.hidden || !beside.matches;
    root.hidden = closed || isApart;
    if (!root.hidden) {
      panel.showHint();
    }
  }

  app.on("pick", (pick) => {
    if (!pick) {
      rest();
    } else if (pick.asked || !root.hidden) {
      closed &&= !pick.asked;
      show(pick);
    }
  });
  app.on("turns", () => {
    const turn = app.tree.turns.get(picked?.turn.id);
    if (turn && !app.tree.path().includes(turn)) {
      rest();
    }
  });
  app.on("view", () => {
    closed = false;
    rest();
  });
  beside.addEventListener("change", () => picked || rest());
  rest();
  // At the document: it takes Escape before the composer does, which listens at the window.
  document.addEventListener("keydown", (event) => {
    const inDialog = event.target.closest?.("dialog, [popover]");
    if (event.key === "Escape" && picked && !event.defaultPrevented && !inDialog) {
      event.preventDefault();
      close();
    }
  });
}
