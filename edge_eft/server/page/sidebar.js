/** The conversations: found, opened, renamed, deleted, taken along and brought in. */

import { element, place, setAttribute } from "./dom.js";
import { mountDrawer } from "./drawer.js";
import { openMenu } from "./menu.js";
import { makeNotice } from "./notice.js";
import { firstWords } from "./tree.js";

/**
 * @typedef {import("./app.js").App} App
 * @typedef {import("./tree.js").Conversation} Conversation
 */

const DAY = 24 * 60 * 60 * 1000;
const TYPING = 150; // ms, after which what was typed is searched

/**
 * @param {App} app
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
  #rows = new Map(); // id of a conversation → its row
  #found = null; // ids of what is searched for; null: nothing is
  #headed = new Map(); // a heading's text → it and its list
  #renaming = false;

  constructor(app, root) {
    this.app = app;
    this.root = root;
    this.list = element("div.sidebar-list");
    this.search = element("input", {
      ...{ type: "search", placeholder: "Search", "aria-label": "Search conversations" },
      oninput: () => this.#typed(),
    });
    this.notice = makeNotice(app, () => this.search.focus());
    this.unkept = element("p.sidebar-unkept", { hidden: true });
    root.append(this.#head(), this.list, this.notice.root, this.unkept, this.#foot());
    const draw = () => this.draw();
    app.on("conversation conversations generation", draw);
    app.store.addEventListener("changed", draw);
    app.store.addEventListener("problem", () => this.#drawProblem());
    document.addEventListener("visibilitychange", draw); // "Today" may be yesterday
    this.#drawProblem();
    draw();
  }

  #head() {
    const begin = element("button.sidebar-new", {
      text: "New conversation",
      onclick: () => this.#open(null),
    });
    return element("div.sidebar-head", begin, this.search);
  }

  #foot() {
    const picker = element("input", {
      ...{ type: "file", multiple: true, accept: ".json,.md", hidden: true },
      onchange: async () => {
        await this.#import([...picker.files]);
        picker.value = ""; // so that the same file can be chosen again
      },
    });
    const button = (text, onclick) => element("button.plain", { text, onclick });
    const all = async () => {
      const ids = (await this.app.store.conversations()).map(({ id }) => id);
      await this.#save("conversations", "json", ({ asJson }) => asJson(this.app.store, ids));
    };
    return element(
      "div.sidebar-foot",
      ...[button("Import…", () => picker.click()), button("Export all", all), picker],
    );
  }

  // -- the list --------------------------------------------------------------------------------

  /** Show the conversations that there are, or those that are found. */
  async draw() {
    const every = await this.app.store.conversations();
    const shown = every.filter(({ id }) => this.#found?.has(id) ?? true);
    const rows = new Map(shown.map((about) => [about.id, this.#row(about)]));
    const groups = Map.groupBy(shown, ({ updated }) => groupOf(updated));
    this.#rows = rows;
    if (!this.#renaming) {
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
      place(
        list,
        all.map(({ id }) => this.#rows.get(id)),
      );
      return [heading, list];
    });
  }

  #row(about) {
    const { id, title } = about;
    const row = this.#rows.get(id) ?? this.#newRow(about);
    const isRunning = [...this.app.generations.values()].some((one) => one.tree.about.id === id);
    const [link, more] = row.querySelectorAll("a, button");
    if (link && more) {
      if (link.firstChild.textContent !== title) {
        link.firstChild.textContent = title;
        link.title = title;
        more.setAttribute("aria-label", `Do something with “${title}”`);
      }
      link.lastChild.hidden = !isRunning;
      const isCurrent = this.app.tree.about.id === id;
      setAttribute(link, "aria-current", isCurrent ? "page" : null);
    }
    return row;
  }

  #newRow({ id }) {
    const running = element("span.sidebar-running", { text: "replying", hidden: true });
    const link = element(
      "a",
      { href: `#${id}`, onclick: () => this.onOpened() },
      ...[element("span.sidebar-title"), running],
    );
    const more = element("button.plain.icon", {
      text: "⋯",
      "aria-haspopup": "menu",
      onclick: () => openMenu(more, this.#actions(id)),
    });
    return element("li.sidebar-row", link, more);
  }

  #actions(id) {
    const { store, deltas } = this.app;
    const json = (tokens) => () =>
      this.#save(id, "json", ({ asJson }) => asJson(store, [id], { tokens }));
    const markdown = async ({ asMarkdown }) => new Blob([asMarkdown(await store.load(id), deltas)]);
    return [
      ["Rename", () => this.#rename(id)],
      ["Export as Markdown", () => this.#save(id, "md", markdown)],
      ["Export as JSON", json(false)],
      ["Export as JSON with tokens", json(true)],
      ["Delete", () => this.#delete(id)],
    ];
  }

  // -- what is done ----------------------------------------------------------------------------

  async #open(id) {
    await this.app.open(id);
    this.notice.tell([]);
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
        this.app.announce(found ? `${counted(found.size)} found` : "");
      }
    }, TYPING);
  }

  #rename(id) {
    const row = this.#rows.get(id);
    const kept = [...row.children];
    const before = kept[0].title;
    const input = element("input", { value: before, "aria-label": "Title" });
    this.#renaming = true;
    const end = async (isMeant) => {
      if (!this.#renaming) {
        return;
      }
      this.#renaming = false;
      row.replaceChildren(...kept);
      kept[0].focus();
      if (isMeant && input.value !== before) {
        await this.#name(id, input.value.trim());
      }
      await this.draw();
    };
    input.addEventListener("keydown", (event) => {
      if ((event.key === "Enter" && !event.isComposing) || event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        end(event.key === "Enter");
      }
    });
    input.addEventListener("blur", () => end(true));
    row.replaceChildren(input);
    input.focus();
    input.select();
  }

  /** Give a conversation a title; without one it has that of its first words again. */
  async #name(id, typed) {
    const { app } = this;
    const inMemory = [app.tree, ...[...app.generations.values()].map((one) => one.tree)];
    const tree = inMemory.find(({ about }) => about.id === id) ?? (await app.store.load(id));
    if (tree) {
      const title = firstWords(typed || (tree.path()[0]?.text ?? ""));
      Object.assign(tree.about, { title, renamed: typed !== "" });
      await app.keep(tree);
    }
  }

  async #delete(id) {
    const { app } = this;
    const running = [...app.generations.values()].filter((one) => one.tree.about.id === id);
    await Promise.all(running.map((one) => (one.stop(), one.done)));
    const whole = await app.store.remove(id);
    const wasOpen = app.tree.about.id === id;
    await (wasOpen ? app.open(null) : null);
    await this.draw();
    if (whole) {
      const undo = async () => {
        await app.store.add(whole);
        await (wasOpen ? app.open(id) : null);
        await this.draw();
        this.#rows.get(id)?.querySelector("a")?.focus();
      };
      this.notice.tell([`“${whole.about.title}” is deleted.`], ["Undo", undo]);
      this.notice.root.querySelector("button").focus();
    }
  }

  /** Hand the person a file; what makes it is loaded when it is needed. */
  async #save(id, ending, make) {
    const transfer = await import("./transfer.js");
    const [about] = (await this.app.store.conversations()).filter((one) => one.id === id);
    const name = about ? transfer.fileName(about.title) : id;
    transfer.download(await make(transfer), `${name}.${ending}`);
  }

  async #import(files) {
    const { importFile } = await import("./transfer.js");
    const ids = [];
    const problems = [];
    for (const file of files) {
      try {
        ids.push(...(await importFile(this.app.store, file)));
      } catch (error) {
        problems.push(error.message);
      }
    }
    if (ids.length) {
      await this.app.open(ids[0]);
    }
    await this.draw();
    const done = ids.length ? [`${counted(ids.length)} imported.`] : [];
    this.notice.tell([...problems, ...done]);
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

function counted(n) {
  return `${n} conversation${n === 1 ? "" : "s"}`;
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
