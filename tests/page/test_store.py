"""What is said stays, whatever the browser, another tab or a reload do."""

import pytest
from helpers.browser import watched
from helpers.kept_conversations import in_page, keep

pytestmark = pytest.mark.slow

TOKENS = """
const token = (i) => ({ id: i, text: `t${i}`, drafted: null, logprobs: {}, candidates: [] });
const tokens = (from, to) => Array.from({ length: to - from }, (_, i) => token(from + i));
const idsOf = async (store, turn) => (await store.tokens(turn)).map(({ id }) => id);
"""
CLOSED = "the page was closed before the reply ended"


@pytest.fixture(scope="module")
def opened(browser, server):
    """A page that tests share which look at conversations of their own alone."""
    with watched(browser, server.url) as page:
        page.goto("/")
        yield page


def test_a_conversation_comes_back_as_it_was_said(opened):
    script = f"""{TOKENS}
    const [one, other] = [await openStore(), await openStore()];
    const {{ about, turns }} = makeWhole(["Why?", "Because.", "Oh?", "Yes."]);
    await one.saveConversation(about);
    for (const turn of turns) await one.saveTurn(turn);
    await one.appendTokens(turns[1].id, 0, tokens(0, 3));
    await one.appendTokens(turns[1].id, 3, tokens(3, 5));
    const tree = await other.load(about.id);
    return {{
      same: JSON.stringify([tree.about, tree.path()]) === JSON.stringify([about, turns]),
      tokens: await idsOf(other, turns[1].id), none: await idsOf(other, turns[3].id),
      missing: await other.load("elsewhere"), kept: one.problem === "",
    }};"""
    assert in_page(opened, script) == {
        "same": True,
        "tokens": [0, 1, 2, 3, 4],
        "none": [],
        "missing": None,
        "kept": True,
    }


def test_the_conversation_used_last_is_the_first(opened):
    ids = keep(opened, ["One"], ["Two"], ["Three"])
    script = "return (await (await openStore()).conversations()).map(({ id }) => id)"
    assert [one for one in in_page(opened, script) if one in ids] == ids[::-1]


def test_tokens_that_come_again_replace_the_rest_and_none_stands_behind_a_gap(opened):
    script = f"""{TOKENS}
    const store = await openStore();
    await store.appendTokens("again", 0, tokens(0, 4));
    await store.appendTokens("again", 2, tokens(12, 14));
    await store.appendTokens("gap", 0, tokens(0, 2));
    await store.appendTokens("gap", 3, tokens(3, 5));
    return [await idsOf(store, "again"), await idsOf(store, "gap")];"""
    assert in_page(opened, script) == [[0, 1, 12, 13], [0, 1]]


STREAMING = """
const whole = makeWhole(["Why?", "Becau"]);
const [, reply] = whole.turns;
reply.state = "streaming";
const store = await openStore();
await store.saveConversation(whole.about);
await store.saveTurn(reply);
const other = await openStore();
const look = async () => {
  const { state, problem = "" } = (await other.load(whole.about.id)).turns.get(reply.id);
  return [state, problem];
};
const change = new Promise((resolve) => other.addEventListener("changed", resolve));
const changed = async () => (await change).detail.conversation === whole.about.id;
"""


def test_a_reply_is_coming_while_its_tab_holds_the_lock_and_then_cut(opened):
    script = f"""{STREAMING}
    let release;
    const held = new Promise((resolve) => (release = resolve));
    await new Promise((resolve) =>
      navigator.locks.request(`reply-${{reply.id}}`, () => (resolve(), held)));
    const before = await look();
    release();
    return [before, await changed(), await look()];"""
    assert in_page(opened, script) == [["streaming", ""], True, ["cut", CLOSED]]


def test_without_locks_a_reply_that_is_not_written_any_more_is_cut(page):
    page.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
    page.goto("/")
    script = f"{STREAMING} return [await look(), await changed(), await look()];"
    assert in_page(page, script) == [["streaming", ""], True, ["cut", CLOSED]]


def test_a_deleted_conversation_is_gone_with_all_of_it_and_comes_back_whole(opened):
    script = f"""{TOKENS}
    const [store, streaming] = [await openStore(), await openStore()];
    const whole = makeWhole(["Why?", "Because."]);
    const [, reply] = whole.turns;
    await store.add({{ ...whole, chunks: [{{ turn: reply.id, at: 0, tokens: tokens(0, 3) }}] }});
    const told = new Promise((resolve) => streaming.addEventListener("changed", resolve));
    const removed = await store.remove(whole.about.id);
    await told;
    await streaming.saveTurn({{ ...reply, text: "Because. And" }});
    await streaming.appendTokens(reply.id, 3, tokens(3, 4));
    await streaming.saveConversation(whole.about);
    const gone = [await store.load(whole.about.id), await idsOf(store, reply.id)];
    await store.add(removed);
    const tree = await streaming.load(whole.about.id);
    return [gone, tree.path().map(({{ text }}) => text), await idsOf(streaming, reply.id)];"""
    assert in_page(opened, script) == [[None, []], ["Why?", "Because."], [0, 1, 2]]


def test_tabs_do_not_overwrite_each_others_turns(opened):
    script = """
    const [one, other] = [await openStore(), await openStore()];
    const { about, turns } = makeWhole(["Why?"]);
    await one.add({ about, turns, chunks: [] });
    const trees = [await one.load(about.id), await other.load(about.id)];
    const said = trees.map((tree, i) => tree.add(turns[0].id, { role: "assistant", text: `${i}` }));
    await Promise.all([one.saveTurn(said[0]), other.saveTurn(said[1])]);
    await Promise.all(trees.map((tree, i) => [one, other][i].saveConversation(tree.about)));
    const tree = await one.load(about.id);
    return tree.children(turns[0].id).map(({ text }) => text).sort();"""
    assert in_page(opened, script) == ["0", "1"]


def test_search_wants_every_word_of_titles_and_texts(opened):
    ids = keep(
        opened,
        ["Where is Lima?", "In PERÚ, by the sea."],
        ["Where is La Paz?", "In Bolivia."],
        *([f"Question {i}", "Answer"] for i in range(110)),  # of more than a batch
    )
    script = "return [...(await (await openStore()).search(given))]"
    assert in_page(opened, script, "peru lima") == [ids[0]]
    assert sorted(in_page(opened, script, "  WHERE ")) == sorted(ids[:2])
    assert in_page(opened, script, "question 109") == [ids[-1]]
    assert in_page(opened, script, "lima bolivia") == []


def test_without_a_database_all_is_there_until_the_page_is_closed(page):
    page.add_init_script("IDBFactory.prototype.open = () => { throw new DOMException('no') }")
    page.goto("/")
    script = f"""{TOKENS}
    const store = await openStore();
    const whole = makeWhole(["Why?", "Because."]);
    await store.add(whole);
    await store.appendTokens(whole.turns[1].id, 0, tokens(0, 2));
    const tree = await store.load(whole.about.id);
    return [
      store.problem === "", tree.path().map(({{ text }}) => text),
      await idsOf(store, whole.turns[1].id),
      (await store.search("because")).size, Boolean(await store.remove(whole.about.id)),
      await store.conversations(),
    ];"""
    assert in_page(page, script) == [False, ["Why?", "Because."], [0, 1], 1, True, []]
    assert page.locator(".sidebar-unkept").text_content().startswith("The browser keeps nothing")


def test_what_a_full_storage_refuses_is_kept_once_there_is_room(page, server):
    session = page.context.new_cdp_session(page)

    def quota(**size):
        session.send("Storage.overrideQuotaForOrigin", {"origin": server.url, **size})

    quota(quotaSize=1_000_000)  # before the browser has looked how much room there is
    page.goto("/")
    told, ids, titles, n_kept = in_page(
        page,
        """window.store = await openStore();
        window.small = makeWhole(["Why?"]);
        const large = makeWhole(["x".repeat(3_000_000)], { title: "Large" });
        await store.add(small);
        await store.add(large);
        await store.saveTurn({ ...small.turns[0], text: "Why, again?" });
        const titles = (await store.conversations()).map(({ title }) => title);
        const n_kept = (await (await openStore()).conversations()).length;
        return [store.problem, [small.about.id, large.about.id], titles, n_kept];""",
    )
    assert told.startswith("The browser's storage is full.")
    assert "Large" in titles
    assert n_kept == 1
    quota()
    script = """await store.saveConversation(small.about);
    const other = await openStore();
    const texts = [];
    for (const id of given) texts.push((await other.load(id)).path()[0].text.slice(0, 11));
    return [store.problem, texts];"""
    assert in_page(page, script, ids) == ["", ["Why, again?", "x" * 11]]
