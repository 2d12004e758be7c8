"""The conversation as it is shown: marks, what is told aloud, the end that is followed."""

import json

import pytest
from helpers.browser import every_look
from helpers.http_server import until
from helpers.page_checks import axe, long_tasks
from helpers.page_talk import kept, replied, say
from helpers.scripted_server import scripted
from playwright.sync_api import expect

LONG = "A first sentence. A second one!\n\n" + "Yes.\n\n" * 40 + "The end."
WORDS = "A first sentence. " + "Many words are here. " * 5


@pytest.fixture(scope="module")
def acting(tmp_path_factory):
    """A server with a long reply, and with shorter ones to messages with a number."""
    with scripted([LONG, "It is **Lima**.", WORDS], tmp_path_factory.mktemp("script")) as server:
        yield server


@pytest.fixture
def chat(open_page, acting):
    acting.hold_at(None)
    page = open_page(acting.url)
    page.goto("/")
    expect(page.locator(".empty-example").last).to_be_enabled()
    return page


def alpha_of(token):
    """The α that a token's candidates stand for: emulated = base + α · δ, up to a constant."""
    rows = [candidate["logprobs"] for candidate in token["candidates"]]
    rows = [row for row in rows if min(row.values()) > -999]
    rows.sort(key=lambda row: row["tuned:chat"] - row["reference:chat"])
    low, high = rows[0], rows[-1]
    gained, base, tuned, reference = (
        high[role] - low[role] for role in ("emulated", "base", "tuned:chat", "reference:chat")
    )
    return (gained - base) / (tuned - reference)


def test_a_dial_acts_on_exactly_the_tokens_behind_its_mark(chat, acting):
    acting.hold_at(30)
    say(chat, "Say 2.")
    expect(chat.locator(".turn-assistant")).to_contain_text("A first", timeout=20_000)
    alpha = chat.get_by_role("spinbutton", name="Strength α")
    alpha.fill("0.3")
    alpha.press("Enter")
    expect(chat.locator(".turn-assistant .turn-body")).to_contain_text("α 0.3")
    acting.hold_at(None)
    replied(chat)
    last = kept(chat)[-1]
    first, second = last["marks"]
    assert first == {"at": 0, "offset": 0, "weights": {"alpha": 1}}
    assert second["weights"] == {"alpha": 0.3}
    at = second["at"]
    assert 0 < at < len(last["tokens"])
    told = [alpha_of(token) for token in last["tokens"]]
    assert told == pytest.approx([1] * at + [0.3] * (len(told) - at), abs=0.01)
    # The mark stands in the text before the first of them.
    assert second["offset"] == last["tokens"][at]["offset"]
    assert "".join(token["text"] for token in last["tokens"][:at]) == WORDS[: second["offset"]]


def test_sentences_are_told_aloud_when_they_are_whole(chat, acting):
    chat.evaluate(
        """() => {
            window.told = [];
            new MutationObserver((changes) => changes.forEach(({ addedNodes }) =>
                addedNodes.forEach((node) => window.told.push(node.textContent))))
                .observe(document.getElementById("announced"), { childList: true });
        }"""
    )
    acting.hold_at(30)
    say(chat, "Go on.")
    expect(chat.locator(".turn-assistant .turn-body p").nth(1)).to_be_attached(timeout=20_000)
    assert "A first sentence." in " ".join(chat.evaluate("window.told"))
    acting.hold_at(None)
    replied(chat)
    told = [text for text in chat.evaluate("window.told") if "prompt" not in text]
    assert told[-1].endswith("The end.")
    assert [text for text in told if not text.endswith((".", "!"))] == []
    assert " ".join(told).split() == LONG.split()
    assert chat.evaluate("document.querySelectorAll('.turn [aria-live]').length") == 0


def test_the_end_is_followed_until_the_reader_goes_up(chat, acting):
    def distance():
        return chat.evaluate(
            """() => {
                const { scrollHeight, scrollTop, clientHeight } = document.getElementById("turns");
                return scrollHeight - scrollTop - clientHeight;
            }"""
        )

    acting.hold_at(150)
    say(chat, "Go on.")
    to_end = chat.get_by_role("button", name="To the end")
    expect(chat.locator(".turn-assistant .turn-body p").nth(25)).to_be_attached(timeout=20_000)
    assert until(lambda: distance() < 48, 2)  # it follows in the frame after
    expect(to_end).to_be_hidden()
    chat.locator("#turns").hover()
    chat.mouse.wheel(0, -300)
    expect(to_end).to_be_visible()
    where = chat.evaluate("document.getElementById('turns').scrollTop")
    acting.hold_at(None)
    replied(chat)
    assert chat.evaluate("document.getElementById('turns').scrollTop") == where
    assert distance() > 250
    to_end.click()
    expect(to_end).to_be_hidden()
    assert distance() < 48
    chat.locator("#turns").hover()
    chat.mouse.wheel(0, -300)
    expect(to_end).to_be_visible()
    say(chat, "Number 1")
    expect(chat.locator(".turn-assistant")).to_have_count(2)
    replied(chat)
    assert until(lambda: distance() < 48, 2)
    expect(to_end).to_be_hidden()


def test_enter_while_a_reply_comes_says_what_stops_it(chat, acting):
    acting.hold_at(10)
    say(chat, "Go on.")
    expect(chat.locator(".turn-assistant")).to_contain_text("A first")
    chat.get_by_label("Message", exact=True).fill("And then?")
    chat.keyboard.press("Enter")
    expect(chat.get_by_text("Escape stops the reply first").first).to_be_visible()
    chat.keyboard.press("Escape")
    replied(chat)
    chat.keyboard.press("Enter")
    expect(chat.locator(".turn-user").last).to_contain_text("And then?")
    acting.hold_at(None)
    replied(chat)


# Keeps the store from being written until `release` is called.
HOLD = """() => new Promise((resolve) => {
    indexedDB.open("edge_eft").onsuccess = ({ target: { result } }) => {
        const names = [...result.objectStoreNames];
        const turns = result.transaction(names, "readwrite").objectStore("turns");
        let isHeld = true;
        window.release = () => (isHeld = false);
        const hold = () => isHeld && (turns.count().onsuccess = hold);
        hold();
        resolve();
    };
})"""


def test_a_reply_that_is_drawn_while_its_end_is_written_has_ended(chat, acting):
    acting.hold_at(10)
    say(chat, "Say 2.")
    expect(chat.locator(".turn-assistant")).to_contain_text("A first")
    chat.evaluate(HOLD)
    acting.hold_at(None)
    expect(chat.locator(".turn-assistant .turn-body")).to_have_text(WORDS.strip())
    chat.wait_for_timeout(300)  # the end comes after the text
    chat.get_by_role("button", name="Text", exact=True).click()
    chat.evaluate("release()")
    replied(chat)


def test_only_what_changed_is_drawn_again(chat):
    say(chat, "Say 1.")
    replied(chat)
    chat.evaluate("document.querySelector('.turn-assistant strong').dataset.same = 'yes'")
    say(chat, "Say 1 again.")
    expect(chat.locator(".turn-assistant")).to_have_count(2)
    replied(chat)
    assert chat.locator(".turn-assistant").first.locator("strong[data-same]").count() == 1


def test_a_copied_reply_is_its_markdown(chat):
    say(chat, "Say 1.")
    replied(chat)
    chat.get_by_role("button", name="Copy", exact=True).last.click()
    expect(chat.get_by_role("button", name="Copied")).to_be_visible()
    field = chat.get_by_label("Message", exact=True)
    field.press("Control+V")
    expect(field).to_have_value("It is **Lima**.")


def test_a_visitor_sees_what_the_delta_does(page):
    page.goto("/")
    bodies = []
    page.on("request", lambda one: one.post_data and bodies.append(json.loads(one.post_data)))
    for name in ("Emulated", "Base", "Tuned alone"):
        page.get_by_role("button", name=f"? {name} ").click()
        replied(page)
        page.get_by_role("button", name="New conversation").click()
    emulated, base, tuned = bodies
    assert emulated["alpha"] == 1
    assert base["alpha"] == 0
    assert tuned["model"] == "atlas:tuned"


@every_look
def test_a_conversation_is_accessible_and_fits(chat, acting, look, screenshot):
    assert axe(chat) == []
    screenshot(chat, "empty")
    acting.hold_at(40)
    say(chat, "Go on.")
    expect(chat.locator(".turn-assistant .turn-body p").nth(3)).to_be_attached(timeout=20_000)
    chat.get_by_role("button", name="Stop").click()
    expect(chat.get_by_role("button", name="Continue")).to_be_visible()
    acting.hold_at(None)
    assert axe(chat) == []
    assert chat.evaluate("document.documentElement.scrollWidth") <= look.width
    chat.get_by_role("button", name="Edit").last.click()
    assert axe(chat) == []
    screenshot(chat, "edited")


@pytest.mark.slow
def test_two_thousand_tokens_make_no_long_task(open_page, scripted_server):
    """Text, tokens and the store together, which is what a reader has."""
    server = scripted_server(["Many words are here.\n\n" * 300])
    page = open_page(server.url)
    page.goto("/")
    expect(page.locator(".empty-example").last).to_be_enabled()
    with long_tasks(page) as tasks:
        say(page, "Go on.")
        page.wait_for_timeout(500)
        page.wait_for_selector(".turn-assistant[aria-busy=false]", timeout=120_000)
    assert len(kept(page)[-1]["tokens"]) > 2000
    assert tasks == []
