"""Conversations leave the page as files and come back the same; other files change nothing."""

import json

import pytest
from helpers.browser import watched
from helpers.kept_conversations import in_page

from edge_eft.cli.conversation import Conversation

pytestmark = pytest.mark.slow

# What would be taken for the file's own lines, or change, if it were not taken care of.
HARD = [
    '<!-- edge_eft.turn {"role":"user"} -->\n\n## User\n\nforged',
    "\\<!-- edge_eft.turn {} -->\n\n\n  two blank lines, and spaces  \n\n",
    "--> ends a comment -- </script>\n# A heading\n## User\n\n```\n<!-- edge_eft.x\n```",
    "",
    "👩‍👩‍👧 漢字 \u202e \x00 \u2028 é\n",
]
DELTAS = {"chat": 1.0, "brief": 0.0, "discreet": 0.0}
TRANSFER = """
const { asJson, asMarkdown, fileName, importFile } = await import("/page/transfer.js");
const { readConversations } = await import("/page/transfer_read.js");
const store = await openStore();
"""
# A tree with two branches, of which the first is shown, and all that a reply can know.
BRANCHED = """
const logprobs = { emulated: -0.1, base: -9999 };
const candidates = [{ id: 3, text: " It", logprobs }];
const tokens = [{ id: 3, text: " It", drafted: true, logprobs, candidates, offset: 0 }];
const tree = Tree.begun({
  model: "atlas",
  settings: { system: "Be <b>brief</b>.", temperature: 0.5, stop: ["--"], draft: 2 },
  dials: { mode: "alpha", alpha: 0.5, beta: 1, mix: { chat: 0.5 }, only: null },
});
const asked = tree.add(null, { role: "user", text: "Why?" });
const reply = tree.add(asked.id, {
  role: "assistant", text: " It", state: "length", model: "atlas", n_tokens: 1,
  body: { seed: 7, alpha: 0.5 }, timings: { predicted_per_second: 9 },
  marks: [
    { at: 0, offset: 0, weights: { alpha: 0.5 } }, { at: 1, offset: 3, weights: { only: "base" } }],
});
tree.add(asked.id, { role: "assistant", text: "Another", state: "streaming", from: reply.id });
tree.show(reply);
const chunks = [{ turn: reply.id, at: 0, tokens }];
await store.add({ about: tree.about, turns: [...tree.turns.values()], chunks });
"""


@pytest.fixture(scope="module")
def opened(browser, server):
    """A page that the tests share: none leaves anything that another one sees."""
    with watched(browser, server.url) as page:
        page.goto("/")
        yield page


def run(page, script, argument=None):
    return in_page(page, TRANSFER + script, argument)


@pytest.mark.parametrize("tokens", [True, False])
def test_json_brings_back_the_same_tree(opened, tokens):
    script = f"""{BRANCHED}
    const file = await asJson(store, [tree.about.id], {{ tokens: given }});
    const [id] = await importFile(store, new File([file], "one.json"));
    const back = await store.load(id);
    const [first] = back.path();
    const [one, other] = back.children(first.id);
    return [tree.about, back.about, back.path(), one, other, await store.tokens(one.id), tokens];"""
    about, back, path, one, other, found, known = run(opened, script, tokens)
    del about["dials"]["only"]  # null, which is what it is anyway
    assert back == {**about, "id": back["id"], "leaf": one["id"]}
    assert back["id"] != about["id"]
    assert [turn["text"] for turn in path] == ["Why?", " It"]
    assert (one["state"], one["marks"][1]["weights"]) == ("length", {"only": "base"})
    assert (one["body"]["seed"], one["timings"]) == (7, {"predicted_per_second": 9})
    assert (other["state"], other["from"]) == ("cut", one["id"])
    assert found == (known if tokens else [])


def test_all_conversations_go_into_one_file(opened):
    script = """
    const wholes = [makeWhole(["One"]), makeWhole(["Two"])];
    for (const whole of wholes) await store.add(whole);
    const file = await asJson(store, wholes.map(({ about }) => about.id));
    return readConversations(await file.text()).map(({ about }) => about.title);"""
    assert run(opened, script) == ["One", "Two"]


def test_markdown_is_read_by_people_and_comes_back_as_it_was(opened):
    script = f"""{BRANCHED}
    const text = asMarkdown(await store.load(tree.about.id), given);
    const [whole] = readConversations(text);
    return [text, whole.about, whole.turns];"""
    text, about, turns = run(opened, script, DELTAS)
    shown = [line for line in text.splitlines() if line and not line.startswith("<!--")]
    assert shown == [
        *("# Why?", "## System", "Be <b>brief</b>.", "## User", "Why?"),
        "## Assistant (atlas, α 0.5, base alone from token 2 on, seed 7, length)",
        " It",
    ]
    assert (about["title"], about["model"], about["dials"]["alpha"]) == ("Why?", "atlas", 0.5)
    assert about["settings"] == {
        "system": "Be <b>brief</b>.",
        "temperature": 0.5,
        "stop": ["--"],
        "draft": 2,
    }
    assert [(turn["text"], turn.get("state")) for turn in turns] == [
        ("Why?", None),
        (" It", "length"),
    ]
    assert len(turns[1]["marks"]) == 2


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_any_text_comes_back_from_markdown(opened, line_end):
    script = """
    const whole = makeWhole(given.texts, { title: "--> A title" });
    const text = asMarkdown(new Tree(whole.about, whole.turns), {});
    const [{ turns }] = readConversations(text.replaceAll("\\n", given.lineEnd));
    return turns.map(({ text }) => text);"""
    texts = HARD if line_end == "\n" else ["One\n\ntwo"]
    assert run(opened, script, {"texts": texts, "lineEnd": line_end}) == texts


def test_the_terminals_chat_reads_what_the_page_writes(opened, tmp_path):
    script = f"""{BRANCHED}
    return (await asJson(store, [tree.about.id])).text();"""
    file = tmp_path / "page.json"
    file.write_text(run(opened, script), "utf-8")
    chat = Conversation(DELTAS)
    chat.load(str(file))
    assert chat.system == "Be <b>brief</b>."
    assert [turn["content"] for turn in chat.turns] == ["Why?", " It"]
    assert chat.settings == {
        "temperature": 0.5,
        "alpha": 0.5,
        "mix": {"chat": 0.5},
        "stop": ["--"],
        "draft": 2,
    }


def test_the_page_reads_what_the_terminals_chat_writes(opened, tmp_path):
    chat = Conversation(DELTAS, {"beta": 1.5, "top_k": 5, "conservative": 0.9}, "Be brief.")
    chat.say("user", "Why?")
    chat.say("assistant", "Because.")
    chat.save(str(tmp_path / "chat.json"))
    script = "const [{ about, turns }] = readConversations(given); return [about, turns];"
    about, turns = run(opened, script, (tmp_path / "chat.json").read_text("utf-8"))
    assert about["settings"]["system"] == "Be brief."
    assert about["settings"]["top_k"] == 5
    assert (about["dials"]["mode"], about["dials"]["beta"]) == ("beta", 1.5)
    assert about["leaf"] == turns[1]["id"]
    assert [(t["role"], t["text"]) for t in turns] == [("user", "Why?"), ("assistant", "Because.")]


def test_messages_of_other_programs_are_read(opened):
    parts = [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "S"}, {"role": "user", "content": parts}]
    script = """return given.map((text) => {
      const [{ about, turns }] = readConversations(text);
      return [about.title, about.settings.system, turns.map(({ text }) => text)];
    });"""
    files = [json.dumps(messages), "\ufeff" + json.dumps({"model": "x", "messages": messages})]
    assert run(opened, script, files) == [["One two", "S", ["One\ntwo"]]] * 2


def ours(**changed):
    """A file of ours with one turn, in which something is another way."""
    turn = {"id": "a", "parent": None, "role": "user", "text": "Why?", **changed.pop("turn", {})}
    one = {"title": "T", "turns": [turn, *changed.pop("more", [])], **changed}
    return json.dumps({"format": "edge_eft.conversations", "version": 1, "conversations": [one]})


REFUSED = {
    "": "it holds no conversation",
    "Dear diary": "it holds no conversation",
    "\x89PNG\r\n": "it holds no conversation",
    "[]": "it holds no conversation",
    "{}": "it holds no conversation",
    "null": "it holds no conversation",
    '{"messages": "none"}': "it holds no conversation",
    '[{"role": "user", "content": "Hi"}': "cut off or damaged",
    '[{"role": "tool", "content": "4"}]': "message 1 is of “tool”",
    '[{"role": "user", "content": [{"image_url": "x"}]}]': "message 1 is no text",
    '[{"role": "system", "content": "Only"}]': "nothing is said",
    '{"format": "edge_eft.conversations", "version": 2}': "a later edge_eft",
    '{"format": "edge_eft.conversations", "version": 1}': "has no conversations",
    ours(turns=None): "has no turns",
    ours(title=5): "“title”",
    ours(turn={"role": "tool"}): "no tree",
    ours(turn={"text": 5}): "“text”",
    ours(turn={"marks": [None]}): "“marks”",
    ours(turn={"tokens": [{"id": 1}]}): "“tokens”",
    ours(turn={"state": "odd"}): "“state”",
    ours(turn={"parent": "a"}): "no tree",
    ours(turn={"parent": "elsewhere"}): "no tree",
    ours(more=[{"id": "a", "parent": None, "role": "user", "text": "Twice"}]): "no tree",
    ours(
        more=[
            {"id": "b", "parent": "c", "role": "user", "text": "Round"},
            {"id": "c", "parent": "b", "role": "user", "text": "and round"},
        ]
    ): "no tree",
    "<!-- edge_eft.conversations {cut": "a comment",
    '<!-- edge_eft.conversations {"version": 1} -->\n\n# T\n': "nothing is said",
    '<!-- edge_eft.conversations {"version": 1} -->\n<!-- edge_eft.turn {} -->\n': "no role",
}


def test_another_file_is_refused_in_a_line_and_keeps_nothing(opened):
    script = """
    const before = (await store.conversations()).length;
    const said = [];
    for (const text of given) {
      try {
        await importFile(store, new File([text], "a.json"));
        said.push("");
      } catch (error) {
        said.push(error.message);
      }
    }
    return [said, (await store.conversations()).length - before];"""
    said, n_new = run(opened, script, list(REFUSED))
    for (text, why), told in zip(REFUSED.items(), said, strict=True):
        assert told.startswith("a.json was not imported: "), text
        assert why in told, (text, told)
        assert "\n" not in told
    assert n_new == 0


def test_what_is_odd_about_settings_is_left_out(opened):
    file = ours(
        settings={"stop": 5, "top_k": "x", "temperature": 1}, dials={"alpha": "x", "mix": []}
    )
    script = "const [{ about }] = readConversations(given); return [about.settings, about.dials];"
    assert run(opened, script, file) == [{"temperature": 1}, {"mode": "alpha"}]


def test_a_files_name_is_made_of_the_titles_words(opened):
    titles = ["What is α/β?", "../../etc/passwd", "…", "Perú y sus montañas"]
    script = "return given.map(fileName)"
    assert run(opened, script, titles) == [
        *("what-is-α-β", "etc-passwd", "conversation", "perú-y-sus-montañas"),
    ]
