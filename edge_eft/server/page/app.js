/** What the page is about, and who is told when it changes. */

import { Api } from "./api.js";
import { mountCompare } from "./compare.js";
import { mountComposer } from "./composer.js";
import { mountDials, startDials, weightsOf } from "./dials.js";
import { askForKey, waitForKey } from "./key.js";
import { mountPanel } from "./panel.js";
import { mountSettings, startSettings } from "./settings.js";
import { mountSidebar } from "./sidebar.js";
import { mountStatus } from "./status.js";
import { openStore } from "./store.js";
import { Tree } from "./tree.js";
import { mountTurns } from "./turns.js";

const SAID = 5000; // ms that something said is there to be read

/**
 * The state that the parts share. Whoever changes it tells the others by an event:
 *
 * | event | when | detail |
 * |---|---|---|
 * | conversation | another one is open | |
 * | conversations | one is new, renamed, deleted, or was updated | |
 * | turns | the path of the open one changed | |
 * | model, dials, settings, view | the person changed them | |
 * | models | they are known | |
 * | generation | a reply begins or ends | the Generation |
 * | pick | a token is looked at | {turn, index, pinned} or null |
 */
export class App extends EventTarget {
  #opening = null;

  /**
   * @param {Api} api
   * @param {import("./store.js").Store} store
   */
  constructor(api, store) {
    super();
    this.api = api;
    this.store = store;
    /** @type {{id: string, meta: Object}[]} */
    this.models = [];
    /** What is running, of any conversation: id of a turn → Generation. */
    this.generations = new Map();
    this.view = "text"; // or "tokens"
    this.settings = startSettings();
    this.dials = startDials();
    this.model = "";
    this.tree = Tree.begun(this);
  }

  /** Tell the parts of the page. */
  emit(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** Call a function when something changes: `on("turns", draw)`. */
  on(names, listener) {
    for (const name of names.split(" ")) {
      this.addEventListener(name, (event) => listener(event.detail));
    }
  }

  /** What is known of the recipe that is talked to. */
  get meta() {
    return this.models.find((model) => model.id === this.model)?.meta ?? {};
  }

  /** The recipe's deltas, name → weight. */
  get deltas() {
    return this.meta.deltas ?? {};
  }

  /** The weights that the dials stand for. */
  get weights() {
    return weightsOf(this.dials, this.deltas);
  }

  /** The reply that is coming in the open conversation, or undefined. */
  get generation() {
    return [...this.generations.values()].find((one) => one.tree === this.tree);
  }

  /**
   * Open a conversation; without an id, a new one that is kept once something is said in it.
   * @param {?string} id
   */
  async open(id) {
    this.#opening = id;
    const running = [...this.generations.values()].find((one) => one.tree.about.id === id);
    const tree = running?.tree ?? (id && (await this.store.load(id))) ?? Tree.begun(this);
    if (this.#opening !== id) {
      return; // something else was opened meanwhile
    }
    this.tree = tree;
    if (this.tree.turns.size) {
      const { model, settings, dials } = this.tree.about;
      this.settings = { ...startSettings(), ...settings };
      this.dials = { ...startDials(), ...dials };
      this.model = this.models.some((one) => one.id === model) ? model : this.model;
    }
    this.#name();
    this.emit("pick");
    ["conversation", "turns", "model", "dials", "settings"].forEach((name) => this.emit(name));
  }

  /** Take over what another tab did to a conversation; where one is, is where one stays. */
  async refresh(id) {
    const trees = [this.tree, ...[...this.generations.values()].map((one) => one.tree)];
    const [open] = trees.filter((tree) => tree.about.id === id && tree.turns.size);
    if (!open) {
      return;
    }
    const tree = await this.store.load(id);
    if (!tree) {
      const running = [...this.generations.values()].filter((one) => one.tree === open);
      running.forEach((one) => one.stop());
      return open === this.tree ? this.open(null) : undefined;
    }
    Object.assign(open.about, { title: tree.about.title, renamed: tree.about.renamed });
    if (open === this.tree && !this.generation) {
      open.merge(tree);
      this.emit("turns");
    }
    this.#name();
  }

  /** Let the address and the tab's title name the open conversation. */
  #name() {
    const { about, turns } = this.tree;
    const address = turns.size ? `#${about.id}` : location.pathname;
    if (location.hash.slice(1) !== (turns.size ? about.id : "")) {
      history.replaceState(null, "", address);
    }
    document.title = turns.size ? `${about.title} · edge_eft` : "edge_eft";
  }

  /** Keep what the open conversation is about: its title, dials, settings, the path shown. */
  async keep(tree = this.tree) {
    if (tree === this.tree) {
      const { model, settings, dials } = this;
      Object.assign(tree.about, { model, settings: { ...settings }, dials: { ...dials } });
    }
    if (tree.turns.size) {
      await this.store.saveConversation(tree.about);
      this.emit("conversations");
    }
    if (tree === this.tree) {
      this.#name();
    }
  }

  /** Say something to those who do not see the page, after what else is being said. */
  announce(text) {
    const line = document.createElement("p");
    line.textContent = text;
    document.getElementById("announced").append(line);
    setTimeout(() => line.remove(), SAID);
  }
}

/** Learn which models there are, asking again while the server loads or is away. */
async function learnModels(app) {
  for (;;) {
    try {
      app.models = await app.api.models();
      break;
    } catch (error) {
      const later = () => new Promise((resolve) => setTimeout(resolve, 1000));
      await (error.status === 401 ? waitForKey() : later());
    }
  }
  const recipes = app.models.filter((model) => !model.id.includes(":"));
  app.model = recipes.some(({ id }) => id === app.model) ? app.model : recipes[0].id;
  app.emit("models");
}

function mountBar(app) {
  const model = document.getElementById("model");
  app.on("models", () => {
    const recipes = app.models.filter(({ id }) => !id.includes(":"));
    model.replaceChildren(...recipes.map(({ id }) => new Option(id, id)));
    model.disabled = recipes.length < 2;
  });
  app.on("models model", () => (model.value = app.model));
  model.addEventListener("change", () => {
    app.model = model.value;
    app.emit("model");
  });
  for (const view of ["text", "tokens"]) {
    const button = document.getElementById(`view-${view}`);
    button.addEventListener("click", () => {
      app.view = view;
      app.emit("view");
    });
    app.on("view", () => button.setAttribute("aria-pressed", String(app.view === view)));
  }
}

async function start() {
  const app = new App(new Api(askForKey), await openStore());
  mountBar(app);
  mountSidebar(app, document.getElementById("sidebar"));
  mountDials(app, document.getElementById("dials"));
  mountTurns(app, document.getElementById("turns"));
  mountCompare(app, document.getElementById("compare"));
  mountPanel(app, document.getElementById("panel")); // it takes Escape before the composer does
  mountComposer(app, document.getElementById("composer"));
  mountStatus(app, document.getElementById("status"));
  mountSettings(app);
  const named = () => location.hash.match(/^#([0-9a-f]{24})$/u)?.[1] ?? null; // or a place
  const opening = () => app.open(named());
  addEventListener("hashchange", () => named() && named() !== app.tree.about.id && opening());
  app.store.addEventListener("changed", ({ detail }) => app.refresh(detail.conversation));
  await opening();
  await learnModels(app);
  await opening();
}

start();
