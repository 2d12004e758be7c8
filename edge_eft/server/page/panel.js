/** The panel beside the replies: what is known of the token that is looked at. */

import { TokenPanel } from "./token_panel.js";

const WIDE = "(min-width: 1151px)"; // where the panel is a column, as style.css has it

/**
 * A turn's reply, as the views of tokens take it.
 * @param {import("./app.js").App} app
 * @param {import("./tree.js").Turn} turn
 * @param {import("./tree.js").Token[]} tokens
 * @returns {import("./token_math.js").Reply}
 */
export function replyOf(app, turn, tokens) {
  const [recipe, role] = splitModel(turn.model ?? app.model);
  const deltas = app.models.find(({ id }) => id === recipe)?.meta.deltas ?? {};
  const roles = ["base", ...Object.keys(deltas).flatMap((d) => [`tuned:${d}`, `reference:${d}`])];
  const weights = role ? { only: role } : weightsOfBody(turn.body ?? {});
  return { roles, deltas, tokens, marks: turn.marks ?? [], weights };
}

function splitModel(model) {
  const colon = model.indexOf(":");
  return colon < 0 ? [model, ""] : [model.slice(0, colon), model.slice(colon + 1)];
}

function weightsOfBody(body) {
  const names = ["alpha", "beta", "mix"].filter((name) => body[name] !== undefined);
  return Object.fromEntries(names.map((name) => [name, body[name]]));
}

export function mountPanel(app, root) {
  const wide = matchMedia(WIDE);
  let picked = null; // {turn, index, pinned, view?, tokens?, adopt?}
  let closed = false; // by the person, until a token is asked for
  const close = () => {
    const view = picked?.view;
    closed = true;
    app.emit("pick", null);
    view?.unpin(root.contains(document.activeElement) || document.activeElement === document.body);
  };
  const panel = new TokenPanel(root, {
    onContinue: (index, candidate) => act("continueFrom", index, candidate),
    onReplay: (index, weights) => act("replay", index, weights),
    onClose: close,
  });

  async function act(what, index, detail) {
    const { turn, adopt } = picked;
    await adopt?.(); // a reply that is of no conversation yet
    const replies = await import("./replies.js");
    await replies[what](app, turn, index, detail);
  }

  async function show(pick) {
    const before = picked;
    picked = pick;
    const { turn, index, pinned } = pick;
    const read = pick.tokens ?? (before?.turn === turn ? before.tokens : null);
    const tokens = await tokensOf(app, turn, read);
    if (picked !== pick || !tokens[index]) {
      return;
    }
    pick.tokens = tokens;
    root.hidden = false;
    panel.show(replyOf(app, turn, tokens), index, { pinned });
    if (pinned && !before?.pinned) {
      pick.view?.element.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
    }
  }

  /** Nothing is looked at: a hint where the panel is beside the text, which then does not move. */
  function rest() {
    picked = null;
    root.hidden = closed || app.view !== "tokens" || !wide.matches;
    if (!root.hidden) {
      panel.showHint();
    }
  }

  app.on("pick", (pick) => {
    if (!pick) {
      rest();
    } else if (pick.pinned || !root.hidden || document.activeElement?.matches(".token")) {
      closed &&= !pick.pinned;
      show(pick);
    }
  });
  app.on("view", () => {
    closed = false;
    rest();
  });
  wide.addEventListener("change", () => picked || rest());
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && picked && !event.defaultPrevented && !inDialog(event.target)) {
      event.preventDefault();
      close();
    }
  });
}

function inDialog(target) {
  return target.closest?.("dialog") !== null;
}

/** A turn's tokens: those that are coming, those already read, or what is kept. */
async function tokensOf(app, turn, read) {
  const running = app.generations.get(turn.id);
  if (running) {
    return running.tokens;
  }
  return read ?? (await app.store.tokens(turn.id));
}
