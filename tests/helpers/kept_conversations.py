"""Conversations in the storage of a page, put there past the page itself."""

# makeWhole(title, texts, about): a conversation whose turns are these texts, question and answer.
MAKE = """
const { openStore } = await import("/page/store.js");
const { Tree } = await import("/page/tree.js");
const makeWhole = (texts, about = {}) => {
  const tree = Tree.begun({ model: "atlas", settings: {}, dials: {} });
  texts.forEach((text, i) => {
    const values = i % 2 ? { role: "assistant", state: "done" } : { role: "user" };
    tree.add(tree.about.leaf, { text, ...values });
  });
  Object.assign(tree.about, about);
  return { about: tree.about, turns: [...tree.turns.values()], chunks: [] };
};
"""


def in_page(page, script, argument=None):
    """Run a script in a page, as the body of an async function of `given`; return what it does."""
    return page.evaluate(f"async (given) => {{ {MAKE}\n{script} }}", argument)


def keep(page, *conversations):
    """Keep conversations, lists of texts by user and assistant; return their ids.

    Each was used a minute after the one before.
    """
    script = """
    const store = await openStore();
    const ids = [];
    for (const [i, texts] of given.entries()) {
      const whole = makeWhole(texts, { updated: Date.now() - 60_000 * (given.length - i) });
      await store.add(whole);
      ids.push(whole.about.id);
    }
    return ids;"""
    return in_page(page, script, [list(texts) for texts in conversations])
