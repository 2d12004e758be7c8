"""What is said stays: reloads, lost connections, a dead engine, a server that is gone, two tabs."""

import re

import pytest
from helpers.page_talk import ask, kept, opened, replied, reply, say, setting
from helpers.scripted_server import scripted
from playwright.sync_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

QUESTION = "Tell me about the countries of South America."
# What the browser says of connections that a test cuts, and of a server that is not there.
CUT = ["ERR_CONNECTION", "ERR_INCOMPLETE", "ERR_EMPTY", "status of 503"]
SAVED = 700  # ms: what has come is kept twice a second


@pytest.fixture(scope="module")
def acting(tmp_path_factory):
    """A server whose replies are the models' own, and wait where they are held."""
    with scripted([], tmp_path_factory.mktemp("own"), n_ctx=512) as server:
        yield server


@pytest.fixture
def chat(open_page, acting):
    """The base's rambling, of a known seed: a reply of some length."""
    acting.hold_at(None)
    return rambling(open_page(acting.url, allow=CUT))


def rambling(page):
    opened(page)
    setting(page, seed=5)
    page.get_by_role("button", name="Base", exact=True).click()
    return page


def held(page, server, n=12):
    """Have a reply that stands still after so many tokens, and was kept so far."""
    server.hold_at(n)
    say(page, QUESTION)
    expect(reply(page)).to_contain_text(re.compile(r"\w{3}"))
    page.wait_for_timeout(SAVED)


def goes_on(page, server, whole):
    """What was cut is whole after Continue, to the letter, and is still so after a reload."""
    part = kept(page)[-1]["text"]
    assert part
    assert whole.startswith(part)
    assert len(part) < len(whole)
    server.hold_at(None)
    reply(page).get_by_role("button", name="Continue").click()
    expect(reply(page)).not_to_contain_text("Cut:", timeout=20_000)
    assert replied(page) == whole
    page.reload()
    expect(reply(page)).to_contain_text(" ".join(whole.split()[-3:]))
    turns = kept(page)
    assert [turn["state"] for turn in turns if turn["role"] == "assistant"][-1] == "done"
    assert len(turns[-1]["tokens"]) == turns[-1]["n_tokens"]


def test_a_reply_that_is_cut_however_becomes_the_one_that_it_would_have_been(chat, acting):
    """By a reload, by a lost connection, and by the death of the engine, one after the other."""
    whole = ask(chat, QUESTION)
    assert len(whole) > 100
    accidents = [
        (chat.reload, "the page was closed before the reply ended"),
        (acting.cut, "the connection"),
        (acting.kill_engine, "engine"),
    ]
    for accident, says in accidents:
        chat.get_by_role("button", name="New conversation").click()
        held(chat, acting)
        accident()
        expect(reply(chat)).to_contain_text(re.compile(f"Cut: .*{says}"), timeout=20_000)
        expect(chat.get_by_role("contentinfo")).not_to_contain_text("starts again", timeout=20_000)
        goes_on(chat, acting, whole)


def test_a_reply_is_cut_twice_and_still_becomes_whole(chat, acting):
    whole = ask(chat, QUESTION)
    chat.get_by_role("button", name="New conversation").click()
    held(chat, acting)
    acting.cut()
    acting.hold_at(24)
    reply(chat).get_by_role("button", name="Continue").click()
    expect(reply(chat)).to_have_attribute("aria-busy", "true")
    chat.wait_for_timeout(SAVED)
    chat.reload()
    expect(reply(chat)).to_contain_text("Cut:")
    goes_on(chat, acting, whole)


def test_a_server_that_was_gone_is_waited_for_and_nothing_is_lost(open_page, tmp_path):
    """The engine's process and the server's are both others afterwards."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with scripted([], tmp_path / "one", n_ctx=512) as server:
        page = rambling(open_page(server.url, allow=CUT))
        whole = ask(page, QUESTION)
        page.get_by_role("button", name="New conversation").click()
        held(page, server)
        port = server.live.port
        server.cut()
        expect(reply(page)).to_contain_text("Cut:")
        server.hold_at(None)
    page.get_by_role("textbox", name="Message", exact=True).fill("And what of Chile?")
    page.keyboard.press("Enter")
    expect(reply(page)).to_contain_text("Cut: the server cannot be reached")
    status = page.get_by_role("contentinfo")
    expect(status).to_contain_text("The server does not answer")
    with scripted([], tmp_path / "two", n_ctx=512, port=port) as server:
        expect(status).not_to_contain_text("does not answer", timeout=20_000)
        reply(page).get_by_role("button", name="Try again").click()
        expect(reply(page)).not_to_contain_text("Cut:", timeout=20_000)
        assert replied(page)
        assert [turn["text"] for turn in kept(page)][2] == "And what of Chile?"
        page.get_by_role("article", name="Reply of").first.get_by_role(
            "button", name="Continue"
        ).click()
        first = page.get_by_role("article", name="Reply of").first
        expect(first).not_to_contain_text("Cut:", timeout=20_000)
        expect(first).to_have_attribute("aria-busy", "false", timeout=20_000)
        assert kept(page)[1]["text"] == whole
        expect(page.get_by_role("article")).to_have_count(4)


def test_a_page_that_is_opened_while_the_server_loads(open_page, scripted_server):
    server = scripted_server(["Lima."], hold_loading=True)
    page = open_page(server.url, allow=CUT)
    page.goto("/")
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_accessible_name(re.compile(r"Loading: .* of .*iB"))
    message = page.get_by_role("textbox", name="Message", exact=True)
    message.fill("What is the capital of Peru?")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    server.hold_loading(False)
    expect(bar).to_have_count(0, timeout=20_000)
    expect(message).to_have_value("What is the capital of Peru?")
    page.get_by_role("button", name="Send").click()
    expect(reply(page)).to_contain_text("Lima.", timeout=20_000)


def test_a_page_that_was_left_open_finds_the_server_that_comes(open_page, tmp_path):
    """Reloading shows the browser's own words; a page that is there waits."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with scripted(["Lima."], tmp_path / "one") as server:
        page = opened(open_page(server.url, allow=CUT))
        port = server.live.port
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("textbox", name="Message", exact=True)).to_be_editable()
    with scripted(["Lima."], tmp_path / "two", port=port):
        assert ask(page, "What is the capital of Peru?") == "Lima."


def test_two_tabs_lose_nothing_of_each_other(chat, acting):
    """One streams while the other looks on, and says something in the same conversation."""
    held(chat, acting)
    other = chat.context.new_page()
    other.goto(chat.url)
    expect(reply(other)).to_have_attribute("aria-busy", "false")
    expect(reply(other)).not_to_contain_text("Cut:")
    acting.hold_at(None)
    whole = replied(chat)
    expect(reply(other)).to_contain_text(" ".join(whole.split()[-3:]))
    assert ask(other, "And of Asia?")
    assert ask(chat, "And of Africa?")
    for page in (chat, other):
        page.reload()
        expect(reply(page)).to_be_visible()
        turns = page.evaluate(
            """async () => {
                const { openStore } = await import("/page/store.js");
                const tree = await (await openStore()).load(location.hash.slice(1));
                return [...tree.turns.values()].map(({ role, text, state }) => [role, text, state]);
            }"""
        )
        said = [text for role, text, _ in turns if role == "user"]
        assert sorted(said) == ["And of Africa?", "And of Asia?", QUESTION]
        assert ["assistant", whole, "done"] in turns
        assert [state for role, _, state in turns if role == "assistant"] == ["done"] * 3
