/** What the page is about, and who is told when it changes. */

import { Api } from "./api.js";
import { mountComposer } from "./composer.js";
import { mountDials, startDials, weightsOf } from "./dials.js";
import { element } from "./dom.js";
import { Emitter } from "./events.js";
import { recall, remember } from "./kept.js";
import { part } from "./lazy.js";
import { startSettings } from "./settings.js";
import { mountSidebar } from "./sidebar.js";
import { mountStatus } from "./status.js";
import { openStore } from "./store.js";
import { Tree } from "./tree.js";
import { mountTurns } from "./turns.js";

const at = (id) => document.getElementById(id);
const UNKNOWN = { "": 1 }; // deltas of a recipe that is not loaded yet: some delta
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
export class App extends Emitter {
  #opening = null;
  #wanted = "text"; // the view
  #isLearning = false;

  /**
   * @param {Api} api
   * @param {import("./store.js").Store} store
   */
  constructor(api, store) {
    super();
    [this.api, this.store] = [api, store];
    /** @type {{id: string, meta: Object}[]} */
    this.models = [];
    /** What is running, of any conversation: id of a turn → Generation. */
    this.generations = new Map();
    this.view = "text"; // or "tokens"
    /** What shows tokens (panel.js), once they are shown. @type {any} */
    this.tokens = null;
    this.settings = startSettings();
    this.dials = startDials();
    /** Whether the dials were turned since the last reply began. */
    this.isTurned = false;
    this.model = "";
    this.tree = Tree.begun(this);
  }

  async learn() {
    this.models = await this.api.models();
    if (!this.recipes.some(({ id }) => id === this.model)) {
      this.model = this.recipes[0].id;
    }
    this.emit("models");
  }

  /** Learn what a recipe is made of, if it is not known: the server knows it once it is loaded. */
  async learnDeltas(model) {
    const about = this.models.find(({ id }) => id === model);
    if (!this.#isLearning && about && !about.meta.deltas) {
      this.#isLearning = true;
      await this.learn().catch(() => {});
      this.#isLearning = false;
    }
  }

  /** The models but for those that are parts of others. */
  get recipes() {
    return this.models.filter(({ id }) => !id.includes(":"));
  }

  /** What is known of the recipe that is talked to. */
  get meta() {
    return this.models.find(({ id }) => id === this.model)?.meta ?? {};
  }

  /** The recipe's deltas, name → weight. */
  get deltas() {
    return this.meta.deltas ?? UNKNOWN;
  }

  /** Another recipe's deltas; of one that is not known, those of this one. */
  deltasOf(model) {
    return this.models.find(({ id }) => id === model)?.meta?.deltas ?? this.deltas;
  }

  get weights() {
    return weightsOf(this.dials, this.deltas);
  }

  /** The replies that are coming in a conversation. */
  running(id) {
    return [...this.generations.values()].filter((one) => one.tree.about.id === id);
  }

  /** The reply that is coming in the open conversation, or undefined. */
  get generation() {
    return this.running(this.tree.about.id)[0];
  }

  /** Show replies as "text" or "tokens". */
  async look(view) {
    this.#wanted = view;
    if (view === "tokens" && !this.tokens) {
      const tokens = await part(() => import("./panel.js"), "tokens.css");
      if (!tokens || this.#wanted !== view) {
        return;
      }
      this.tokens ??= (tokens.mountPanel(this, at("panel")), tokens);
    }
    this.view = view;
    remember("view", view);
    this.emit("view");
  }

  /**
   * Open a conversation; without an id, a new one that is kept once something is said in it.
   * @param {?string} id
   */
  async open(id) {
    this.#opening = id;
    const [running] = this.running(id);
    const tree = running?.tree ?? (id && (await this.store.load(id))) ?? Tree.begun(this);
    if (this.#opening !== id) {
      return; // something else was opened meanwhile
    }
    this.tree = tree;
    this.isTurned = false;
    if (this.tree.turns.size) {
      const { settings, dials } = this.tree.about;
      this.settings = { ...startSettings(), ...settings };
      this.dials = { ...startDials(), ...dials };
    }
    this.#useModel();
    this.#name();
    this.emit("pick");
    ["conversation", "turns", "model", "dials", "settings"].forEach((name) => this.emit(name));
  }

  /** Talk to the recipe that the open conversation was with, if it is served. */
  #useModel() {
    const { model } = this.tree.about;
    this.model = this.models.some(({ id }) => id === model) ? model : this.model;
  }

  /** The models are known now: go on with the open conversation's. */
  resume() {
    this.#useModel();
    this.emit("model");
  }

  /** The conversation of an id, if it is open or replied in. */
  inMemory(id) {
    return this.tree.about.id === id ? this.tree : this.running(id)[0]?.tree;
  }

  /** Take over what another tab did to a conversation; where one is, is where one stays. */
  async refresh(id) {
    const open = this.inMemory(id);
    if (!open?.turns.size) {
      return;
    }
    const tree = await this.store.load(id);
    if (!tree) {
      this.running(id).forEach((one) => one.stop());
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
    const hash = turns.size ? `#${about.id}` : "";
    if (location.hash !== hash) {
      history.replaceState(null, "", hash || location.pathname);
    }
    document.title = hash ? `${about.title} · edge_eft` : "edge_eft";
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
    const line = element("p", text);
    at("announced").append(line);
    setTimeout(() => line.remove(), SAID);
  }
}

/** Ask what a recipe is made of where it may have become known: chosen, or replying. */
function learnLater(app) {
  app.on("model", () => app.learnDeltas(app.model));
  app.on("generation", (generation) => {
    const learn = () => app.learnDeltas(generation.turn.model);
    generation.on("progress", learn);
    learn();
  });
}

/** Learn which models there are, asking again while the server loads or is away. */
async function learnModels(app, keys) {
  const later = () => new Promise((resolve) => setTimeout(resolve, 1000));
  for (;;) {
    try {
      return await app.learn();
    } catch (error) {
      const key = error.status === 401 ? await keys() : null;
      await (key ? key.waitForKey() : later());
    }
  }
}

function mountBar(app) {
  const model = at("model");
  app.on("models", () => {
    const { recipes } = app;
    model.replaceChildren(...recipes.map(({ id }) => new Option(id, id)));
    model.disabled = recipes.length < 2;
  });
  app.on("models model", () => (model.value = app.model));
  model.onchange = () => {
    app.model = model.value;
    app.emit("model");
  };
  for (const view of ["text", "tokens"]) {
    const button = at(`view-${view}`);
    button.onclick = () => app.look(view);
    app.on("view", () => button.setAttribute("aria-pressed", String(app.view === view)));
  }
}

function mountLater(app) {
  let toggle, open;
  at("open-compare").onclick = async () => {
    const module = await part(() => import("./compare.js"), "compare.css");
    toggle ??= module?.mountCompare(app, at("compare"));
    toggle?.();
  };
  at("open-settings").onclick = async () => {
    const module = await part(() => import("./settings_dialog.js"), "dialogs.css");
    open ??= module?.settingsDialog(app);
    open?.();
  };
}

async function start() {
  const keys = () => part(() => import("./key.js"), "dialogs.css");
  const api = new Api(async (wasRefused) => (await keys())?.askForKey(wasRefused) ?? null);
  const app = new App(api, await openStore());
  mountBar(app);
  mountLater(app);
  learnLater(app);
  mountSidebar(app, at("sidebar"));
  mountDials(app, at("dials"));
  mountComposer(app, at("composer"));
  mountTurns(app, at("turns"));
  mountStatus(app, at("status"));
  const named = () => location.hash.match(/^#([0-9a-f]{24})$/u)?.[1] ?? null; // or a place
  const opening = () => app.open(named());
  addEventListener("hashchange", () => named() && named() !== app.tree.about.id && opening());
  app.store.on("changed", ({ conversation }) => app.refresh(conversation));
  if (recall("view") === "tokens") {
    await app.look("tokens");
  }
  await opening();
  await learnModels(app, keys);
  app.resume();
}

start();
