/** The conversations: found, opened, renamed, deleted, taken along and brought in. */

import { element, place, setAttribute } from "./dom.js";
import { mountDrawer } from "./drawer.js";
import { part } from "./lazy.js";
import { openMenu } from "./menu.js";
import { counted } from "./numbers.js";
import { firstWords } from "./tree.js";

const DAY = 24 * 60 * 60 * 1000;
const TYPING = 150; // ms, after which what was typed is searched

const actions = () => part(() => import("./conversation_actions.js"));

/**
 * @param {import("./app.js").App} app
 * @param {HTMLElement} root
 */
export function mountSidebar(app, root) {
  const sidebar = new Sidebar(app, root);
  const drawer = mountDrawer(root, document.getElementById("open-sidebar"));
  sidebar.onOpened = () => drawer.close();
}

class Sidebar {
  onOpened = () => {};
  /** @type {Map<string, HTMLElement>} */
  rows = new Map(); // id of a conversation → its row
  #isRenaming = false;
  #found = null; // ids of what is searched for; null: nothing is
  #headed = new Map(); // a heading's text → it and its list

  constructor(app, root) {
    this.app = app;
    this.list = element("div.sidebar-list");
    this.search = element("input", {
      ...{ type: "search", placeholder: "Search", "aria-label": "Search conversations" },
      oninput: () => this.#typed(),
    });
    this.notice = element("div.sidebar-notice.row", { hidden: true });
    this.unkept = element("p.sidebar-unkept", { hidden: true });
    root.append(this.#head(), this.list, this.notice, this.unkept, this.#foot());
    const draw = () => this.draw();
    app.on("conversation conversations generation", draw);
    app.store.on("changed", draw);
    app.store.on("problem", () => this.#drawProblem());
    document.addEventListener("visibilitychange", draw); // "Today" may be yesterday
    this.#drawProblem();
    draw();
  }

  #head() {
    const begin = element("button", { onclick: () => this.#open(null) }, "New conversation");
    return element("div.sidebar-head", begin, this.search);
  }

  #foot() {
    const picker = element("input", {
      ...{ type: "file", multiple: true, accept: ".json,.md", hidden: true },
      onchange: async () => {
        await this.#do("takeIn", [...picker.files]);
        picker.value = ""; // so that the same file can be chosen again
      },
    });
    const choose = element("button.plain", { onclick: () => picker.click() }, "Import…");
    const all = element("button.plain", { onclick: () => this.#do("saveAll") }, "Export all");
    return element("div.sidebar-foot", choose, all, picker);
  }

  #actions(id) {
    const action = (text, name, what) => [text, () => this.#do(name, id, what)];
    return [
      ["Rename", () => this.#rename(id)],
      action("Export as Markdown", "saveMarkdown"),
      action("Export as JSON", "saveJson"),
      action("Export as JSON with tokens", "saveJson", { tokens: true }),
      action("Delete", "remove"),
    ];
  }

  /** Do something of conversation_actions.js. */
  async #do(name, ...detail) {
    await (await actions())?.[name](this, ...detail);
  }

  /** Show the conversations that there are, or those that are found. */
  async draw() {
    const every = await this.app.store.conversations();
    const shown = every.filter(({ id }) => this.#found?.has(id) ?? true);
    const groups = Map.groupBy(shown, ({ updated }) => groupOf(updated));
    this.rows = new Map(shown.map((about) => [about.id, this.#row(about)]));
    if (!this.#isRenaming) {
      const focused = document.activeElement;
      place(this.list, this.#sections(groups));
      if (this.list.contains(focused)) {
        focused.focus({ preventScroll: true });
      }
    }
  }

  #sections(groups) {
    if (groups.size === 0) {
      const none = this.#found ? "No conversation has these words." : "No conversations yet.";
      return [element("p.sidebar-none", none)];
    }
    return [...groups].flatMap(([name, all]) => {
      const [heading, list] = this.#headed.get(name) ?? [
        element("h2.sidebar-group", name),
        element("ul", { "aria-label": name }),
      ];
      this.#headed.set(name, [heading, list]);
      const rows = all.map(({ id }) => this.rows.get(id));
      place(list, rows);
      return [heading, list];
    });
  }

  #row(about) {
    const { id, title } = about;
    const row = this.rows.get(id) ?? this.#newRow(about);
    const [link, more] = row.querySelectorAll("a, button");
    if (link && more) {
      if (link.title !== title) {
        link.title = link.firstChild.textContent = title;
        more.setAttribute("aria-label", `Do something with “${title}”`);
      }
      link.lastChild.hidden = !this.app.running(id).length;
      setAttribute(link, "aria-current", this.app.tree.about.id === id ? "page" : null);
    }
    return row;
  }

  #newRow({ id }) {
    const opens = { href: `#${id}`, onclick: () => this.onOpened() };
    const running = element("span.sidebar-running", { hidden: true }, "replying");
    const link = element("a", opens, element("span.sidebar-title"), running);
    const more = element("button.plain.icon", {
      text: "⋯",
      "aria-haspopup": "menu",
      onclick: () => {
        openMenu(more, this.#actions(id));
        actions();
      },
    });
    return element("li.sidebar-row", link, more);
  }

  async #open(id) {
    await this.app.open(id);
    this.notice.hidden = true;
    this.onOpened();
    document.getElementById("composer").querySelector("textarea")?.focus();
  }

  #typed() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(async () => {
      const words = this.search.value.trim();
      const found = words ? await this.app.store.search(words) : null;
      if (words === this.search.value.trim()) {
        this.#found = found;
        await this.draw();
        this.app.announce(found ? `${counted(found.size, "conversation")} found` : "");
      }
    }, TYPING);
  }

  #rename(id) {
    const row = this.rows.get(id);
    const kept = [...row.children];
    const before = kept[0].title;
    const end = async (isMeant) => {
      if (!this.#isRenaming) {
        return;
      }
      this.#isRenaming = false;
      row.replaceChildren(...kept);
      kept[0].focus();
      if (isMeant && input.value !== before) {
        await this.#name(id, input.value.trim());
      }
      await this.draw();
    };
    const onkeydown = (event) => {
      if ((event.key === "Enter" && !event.isComposing) || event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        end(event.key === "Enter");
      }
    };
    const about = { value: before, "aria-label": "Title", onkeydown, onblur: () => end(true) };
    const input = element("input", about);
    this.#isRenaming = true;
    row.replaceChildren(input);
    input.focus();
    input.select();
  }

  /** Give a conversation a title; without one it has that of its first words again. */
  async #name(id, typed) {
    const { app } = this;
    const tree = app.inMemory(id) ?? (await app.store.load(id));
    if (tree) {
      const title = firstWords(typed || (tree.path()[0]?.text ?? ""));
      Object.assign(tree.about, { title, renamed: typed !== "" });
      await app.keep(tree);
    }
  }

  #drawProblem() {
    const { problem } = this.app.store;
    this.unkept.textContent = problem;
    this.unkept.hidden = problem === "";
    if (problem) {
      this.app.announce(problem);
    }
  }
}

/** The heading that a time is found under: by days, then by months. */
function groupOf(time) {
  const then = new Date(time);
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - then.setHours(0, 0, 0, 0)) / DAY);
  if (days <= 0) {
    return "Today";
  }
  const month = then.toLocaleDateString("en", { month: "long", year: "numeric" });
  return days === 1 ? "Yesterday" : days < 7 ? "Last 7 days" : month;
}
