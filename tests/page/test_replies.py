"""The page's replies: asked for, stopped, cut, gone on with, tried again, said otherwise."""

import re

import pytest
from helpers.page_talk import bodies, opened, reply, say
from helpers.scripted_server import scripted
from playwright.sync_api import expect

from edge_eft import Emulator

WORDS = "The first sentence is here. " + "word " * 60 + "and the last one."
# What the browser says of connections that are cut, and of what is refused.
MEANT = ["ERR_CONNECTION", "ERR_INCOMPLETE", "ERR_EMPTY", "status of 503", "status of 400"]


@pytest.fixture(scope="module")
def acting(tmp_path_factory):
    """A server whose reply has many words; to a message with a 1 it is a short one."""
    with scripted([WORDS, "Short."], tmp_path_factory.mktemp("script")) as server:
        yield server


@pytest.fixture
def chat(open_page, acting):
    """The page of that server; `asked` has the bodies that it sent."""
    acting.hold_at(None)
    return begun(open_page(acting.url, allow=MEANT))


@pytest.fixture
def tokens(page):
    """The page of atlas, where a reply is shown by its tokens."""
    page = begun(page)
    say(page, "Which country is Lima the capital of?")
    text_of(page)
    page.get_by_role("button", name="Tokens", exact=True).click()
    return page


def begun(page):
    """A page that is open, with a list of what it asks for."""
    page.asked = bodies(page)
    return opened(page)


def text_of(page):
    """What the last reply says, when it has come."""
    expect(reply(page)).to_have_attribute("aria-busy", "false", timeout=20_000)
    return reply(page).locator(".turn-body").text_content().strip()


def press(page, name):
    page.get_by_role("button", name=name).last.click()


def begin(page, server, n=16):
    """Have a reply that stands still after so many tokens."""
    server.hold_at(n)
    say(page, "Go on.")
    expect(reply(page).locator(".turn-body")).to_contain_text("The first", timeout=20_000)


def test_a_reply_streams_and_ends(chat, acting):
    begin(chat, acting)
    expect(reply(chat)).to_have_attribute("aria-busy", "true")
    expect(chat.get_by_role("button", name="Stop")).to_be_visible()
    expect(chat.get_by_role("button", name="Regenerate")).to_have_count(0)
    acting.hold_at(None)
    assert text_of(chat) == WORDS
    expect(reply(chat)).to_contain_text(re.compile(r"tokens · \d+ tokens/s"))
    (body,) = chat.asked
    assert body["explain"] == 5
    assert body["seed"] >= 0


@pytest.mark.parametrize("by", ["button", "key"])
def test_a_stopped_reply_goes_on_where_it_was(chat, acting, by):
    begin(chat, acting)
    if by == "button":
        press(chat, "Stop")
    else:
        chat.keyboard.press("Escape")
    expect(reply(chat)).to_contain_text("Stopped.")
    kept = text_of(chat)
    assert WORDS.startswith(kept)
    assert len(kept) < len(WORDS)
    acting.hold_at(None)
    press(chat, "Continue")
    expect(reply(chat)).not_to_contain_text("Stopped.")
    assert text_of(chat) == WORDS
    first, second = chat.asked
    assert second["seed"] == first["seed"]
    assert len(second["prefix_ids"]) > 2


@pytest.mark.parametrize("accident", ["cut", "kill_engine"])
def test_a_reply_that_is_cut_says_so_and_goes_on_after_a_reload(chat, acting, accident):
    begin(chat, acting)
    getattr(acting, accident)()
    expect(reply(chat)).to_contain_text("What came is kept.")
    kept = text_of(chat)
    assert WORDS.startswith(kept)
    assert "first" in kept
    acting.hold_at(None)
    chat.reload()
    expect(reply(chat)).to_contain_text("Cut:")
    assert text_of(chat) == kept
    press(chat, "Continue")
    expect(reply(chat)).not_to_contain_text("Cut:", timeout=20_000)
    assert text_of(chat) == WORDS


def test_a_reply_whose_tokens_nobody_asked_for_goes_on_as_a_message(chat, acting):
    press(chat, "Settings")
    chat.get_by_label("Ask what each model thought of each token").uncheck()
    chat.keyboard.press("Escape")
    begin(chat, acting)
    press(chat, "Stop")
    expect(reply(chat)).to_contain_text("Stopped.")
    acting.hold_at(None)
    press(chat, "Continue")
    expect(reply(chat)).not_to_contain_text("Stopped.")
    text_of(chat)
    first, second = chat.asked
    assert "explain" not in first
    assert "prefix_ids" not in second
    said = second["messages"][-1]
    assert said["role"] == "assistant"
    assert WORDS.startswith(said["content"])


@pytest.mark.slow
def test_a_reload_in_mid_reply_keeps_what_had_come(chat, acting):
    begin(chat, acting)
    chat.wait_for_timeout(600)  # it is kept twice a second
    chat.reload()
    acting.hold_at(None)
    expect(reply(chat)).to_contain_text("the page was closed before the reply ended")
    assert WORDS.startswith(text_of(chat))
    press(chat, "Continue")
    expect(reply(chat)).not_to_contain_text("Cut:")
    assert text_of(chat) == WORDS


def test_a_refusal_is_told_in_the_servers_words(chat):
    say(chat, "word " * 5000)
    expect(reply(chat)).to_contain_text(re.compile("Too long for the context: the prompt is"))
    expect(chat.get_by_role("button", name="Try again")).to_have_count(0)
    expect(reply(chat).get_by_role("button", name="New conversation")).to_be_visible()
    press(chat, "Edit")
    chat.get_by_label("Text of the turn").fill("Never mind.")
    chat.keyboard.press("Control+Enter")
    expect(reply(chat).locator(".turn-body")).to_have_text("Never mind.")


def test_another_try_stands_beside_the_first(chat):
    say(chat, "Say 1.")
    text_of(chat)
    press(chat, "Regenerate")
    expect(reply(chat)).to_contain_text("2 / 2")
    assert text_of(chat) == "Short."
    assert chat.asked[0]["messages"] == chat.asked[1]["messages"]
    assert chat.asked[0]["seed"] != chat.asked[1]["seed"]
    seed = f"seed {chat.asked[0]['seed']}"
    expect(reply(chat)).not_to_contain_text(seed)
    press(chat, "Previous version")
    expect(reply(chat)).to_contain_text(seed)
    expect(chat.get_by_role("button", name="Next version")).to_be_focused()


def test_a_message_that_is_edited_has_a_reply_of_its_own(chat):
    say(chat, "Say 1.")
    assert text_of(chat) == "Short."
    chat.get_by_role("button", name="Edit").first.click()
    field = chat.get_by_label("Text of the turn")
    expect(field).to_be_focused()
    field.fill("Say 2.")
    chat.keyboard.press("Escape")
    expect(field).to_have_count(0)
    expect(chat.locator(".turn-user")).to_contain_text("Say 1.")
    chat.get_by_role("button", name="Edit").first.click()
    field.fill("Say 2.")
    chat.locator(".turn-user").get_by_role("button", name="Send").click()
    expect(chat.locator(".turn-user")).to_contain_text("2 / 2")
    assert text_of(chat) == WORDS
    assert [m["content"] for m in chat.asked[1]["messages"]] == ["Say 2."]
    press(chat, "Previous version")
    assert text_of(chat) == "Short."


def test_a_reply_that_is_edited_is_what_the_model_is_told(chat):
    say(chat, "Say 1.")
    text_of(chat)
    press(chat, "Edit")
    chat.get_by_label("Text of the turn").fill("Something else.")
    press(chat, "Save")
    expect(reply(chat)).to_contain_text("written by you")
    say(chat, "Say 1 again.")
    expect(chat.locator(".turn")).to_have_count(4)
    said = [message["content"] for message in chat.asked[-1]["messages"]]
    assert said == ["Say 1.", "Something else.", "Say 1 again."]


def pick(page, i):
    page.locator(".turn-assistant .token").nth(i).click()


def generated(body):
    """What the emulator says to a body's prompt, after its prefix."""
    names = ("prefix_ids", "seed", "draft")
    with Emulator.load("atlas") as emulator:
        return emulator.generate(body["messages"], **{name: body[name] for name in names}).text


def test_an_alternative_is_gone_on_from_as_the_emulator_does(tokens):
    pick(tokens, 1)
    press(tokens, re.compile("Continue from this: "))
    expect(reply(tokens)).to_contain_text(
        re.compile("begins with 1 token of another version, then “.+” as you chose")
    )
    press(tokens, "Text")
    first, second = tokens.asked
    assert second["seed"] == first["seed"]
    assert len(second["prefix_ids"]) == 2
    said = text_of(tokens)
    assert said.endswith(generated(second).strip())


def test_a_replay_under_the_same_weights_is_the_same_reply(tokens):
    press(tokens, "Text")
    before = text_of(tokens)
    press(tokens, "Tokens")
    pick(tokens, 2)
    tokens.get_by_label("α of the replay").fill("1")
    press(tokens, "Replay from here")
    expect(reply(tokens)).to_contain_text("2 / 2")
    press(tokens, "Text")
    assert text_of(tokens) == before
    assert tokens.asked[1]["prefix_ids"]


def test_a_body_has_what_is_set_and_names_one_model_alone(chat):
    bodies = chat.evaluate(
        """async () => {
            const { bodyOf } = await import("/page/replies.js");
            const { startSettings } = await import("/page/settings.js");
            const start = startSettings();
            const deltas = { chat: 1, brief: 0 };
            const chosen = { temperature: 0, top_k: 5, seed: 7, stop: ["a"], explain: false };
            const set = { ...start, ...chosen };
            const asked = { model: "atlas", settings: set, deltas };
            const only = ["base", "tuned", "tuned:chat", "tuned:brief"];
            return {
                plain: bodyOf({ ...asked, settings: start, weights: { alpha: 1 } }),
                set: bodyOf({ ...asked, weights: { beta: 2, mix: { chat: 1, brief: 1 } } }),
                only: only.map((role) => bodyOf({ ...asked, weights: { only: role } }).model),
            };
        }"""
    )
    always = {"stream": True, "return_progress": True, "draft": "auto", "model": "atlas"}
    seed = bodies["plain"].pop("seed")
    assert 0 <= seed < 1 << 32
    assert bodies["plain"] == {**always, "alpha": 1, "explain": 5}
    dials = {"beta": 2, "mix": {"chat": 1, "brief": 1}}
    chosen = {"temperature": 0, "top_k": 5, "seed": 7, "stop": ["a"]}
    assert bodies["set"] == {**always, **dials, **chosen}
    assert bodies["only"] == ["atlas:base", "atlas:tuned", "atlas:tuned", "atlas:tuned:brief"]
