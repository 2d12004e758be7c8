"""The settings: what the server is sent, what is refused in its words, and how long they hold."""

import httpx
import pytest
from helpers.browser import every_look
from helpers.http_server import until
from helpers.page_checks import axe
from helpers.page_talk import COMPLETIONS, bodies, kept, opened, replied, say
from playwright.sync_api import expect

TYPED = {
    "Temperature": "0.3",
    "Top-p": "0.5",
    "Top-k": "12",
    "Min-p": "0.01",
    "Seed": "7",
    "Max tokens": "9",
    "Repetition penalty": "1.1",
    "Presence penalty": "0.2",
    "Frequency penalty": "-0.2",
    "System prompt": "Be brief.",
    "Stop strings": "Q:\n\nA: ",
}
SENT = {
    "temperature": 0.3,
    "top_p": 0.5,
    "top_k": 12,
    "min_p": 0.01,
    "seed": 7,
    "max_tokens": 9,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": -0.2,
    "stop": ["Q:", "A: "],
    "draft": 2,
}
WRONG = {
    "Temperature": ("temperature", 100.5),
    "Top-p": ("top_p", 0),
    "Top-k": ("top_k", 1.5),
    "Min-p": ("min_p", -0.1),
    "Repetition penalty": ("repetition_penalty", 0),
    "Presence penalty": ("presence_penalty", 101),
}


@pytest.fixture
def settings(page):
    """The page with the dialog open."""
    return show(opened(page))


def show(page):
    page.get_by_role("button", name="Settings").click()
    return page


def field(page, name):
    return page.get_by_label(name, exact=True)


def done(page):
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_what_is_set_is_sent_and_nothing_else(settings):
    asked = bodies(settings)
    done(settings)
    say(settings, "Hi")
    replied(settings)
    show(settings)
    for name, text in TYPED.items():
        field(settings, name).fill(text)
    field(settings, "Draft").select_option("2")
    field(settings, "Ask what each model thought of each token").uncheck()
    done(settings)
    say(settings, "Hi again")
    replied(settings)
    first, second = asked
    assert not {*first} & {*SENT} - {"draft", "seed"}
    assert (first["draft"], first["explain"]) == ("auto", 5)
    assert {name: second[name] for name in SENT} == SENT
    assert "explain" not in second
    assert second["messages"][0] == {"role": "system", "content": "Be brief."}


def test_what_is_wrong_is_said_in_the_servers_words_and_not_taken(settings, server):
    asked = bodies(settings)
    hello = {"messages": [{"role": "user", "content": "Hi"}]}
    for name, (param, value) in WRONG.items():
        typed = field(settings, name)
        typed.fill(str(value))
        answer = httpx.post(server.url + COMPLETIONS, json={**hello, param: value})
        about = typed.locator("~ .settings-help").inner_text()
        words = answer.json()["error"]["message"]
        expect(typed).to_have_accessible_description(f"{about} {words}")
    settings.get_by_role("button", name="Done").click()
    expect(field(settings, "Temperature")).to_be_focused()
    typed = field(settings, "Temperature")
    typed.fill("101")
    field(settings, "Seed").focus()
    settings.keyboard.press("Escape")
    expect(typed).to_be_focused()
    settings.keyboard.press("Escape")  # what is wrong is given up
    say(settings, "Hi")
    replied(settings)
    assert not {*asked[0]} & {param for param, _ in WRONG.values()}


def test_settings_are_kept_with_the_conversation_and_begin_the_next(settings):
    field(settings, "Temperature").fill("0")
    done(settings)
    say(settings, "Hi")
    replied(settings)
    first = settings.evaluate("location.href")  # settings.url may lag behind
    show(settings)
    field(settings, "Temperature").fill("0.9")
    done(settings)
    assert until(lambda: kept(settings)[0]["about"]["settings"]["temperature"] == 0.9)
    opened(settings)  # a new one
    show(settings)
    expect(field(settings, "Temperature")).to_have_value("0.9")
    settings.get_by_role("button", name="Reset to defaults").click()
    expect(field(settings, "Temperature")).to_have_value("")
    done(settings)
    settings.goto(first)
    settings.reload()
    expect(settings.locator(".turn-assistant")).to_have_count(1)
    show(settings)
    expect(field(settings, "Temperature")).to_have_value("0.9")


@every_look
def test_settings_in_every_look(settings, look, screenshot):
    field(settings, "Temperature").fill("200")
    screenshot(settings)
    assert axe(settings) == []
    field(settings, "Temperature").fill("")
    settings.keyboard.press("Escape")
    expect(settings.get_by_role("button", name="Settings")).to_be_focused()
