/** What is seldom done with conversations: deleted, taken along and brought in. */

import { element } from "./dom.js";
import { counted } from "./numbers.js";
import { importFile } from "./transfer.js";

export { saveAll, saveJson, saveMarkdown } from "./transfer.js";

/** Import files, and say what came of it. */
export async function takeIn(sidebar, files) {
  const { app } = sidebar;
  const ids = [];
  const problems = [];
  for (const file of files) {
    try {
      ids.push(...(await importFile(app.store, file)));
    } catch (error) {
      problems.push(error.message);
    }
  }
  if (ids.length) {
    await app.open(ids[0]);
  }
  await sidebar.draw();
  const done = ids.length ? [`${counted(ids.length, "conversation")} imported.`] : [];
  tell(sidebar, [...problems, ...done]);
}

/** Delete a conversation, which can be had back for a while. */
export async function remove(sidebar, id) {
  const { app } = sidebar;
  await Promise.all(app.running(id).map((one) => (one.stop(), one.done)));
  const whole = await app.store.remove(id);
  const wasOpen = app.tree.about.id === id;
  await (wasOpen ? app.open(null) : null);
  await sidebar.draw();
  if (whole) {
    const undo = async () => {
      await app.store.add(whole);
      await (wasOpen ? app.open(id) : null);
      await sidebar.draw();
      sidebar.rows.get(id)?.querySelector("a")?.focus();
    };
    tell(
      sidebar,
      [`“${whole.about.title}” is deleted.`],
      element("button", { onclick: undo }, "Undo"),
    );
    sidebar.notice.querySelector("button").focus();
  }
}

/** Say something that stays until it is put away, or its button is pressed. */
function tell({ app, notice, search }, lines, button = null) {
  const away = element("button.plain.icon", { "aria-label": "Dismiss" }, "✕");
  away.addEventListener("click", () => search.focus());
  const said = element("div", ...lines.map((line) => element("p", line)));
  for (const one of [away, button]) {
    one?.addEventListener("click", () => (notice.hidden = true));
  }
  notice.replaceChildren(...[said, button, away].filter(Boolean));
  notice.hidden = false;
  app.announce(lines.join(" "));
}
