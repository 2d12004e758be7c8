/** The file that `edge-eft inspect` writes: the tokens of one reply, and the panel of one of them. */

import { tokenOf } from "../server/page/incoming.js";
import { TokenPanel } from "../server/page/token_panel.js";
import { tokenLegend, TokenView } from "../server/page/token_view.js";

const { explain, ...about } = JSON.parse(document.getElementById("reply").textContent);
const reply = { ...about, tokens: explain.map(tokenOf) };
const root = document.getElementById("panel");
const panel = new TokenPanel(root);
const view = new TokenView({
  onPick: (pick) => (pick ? panel.show(reply, pick.index, pick) : panel.showHint()),
});
document.getElementById("tokens").replaceChildren(view.element, tokenLegend());
view.set(reply);
panel.showHint();
