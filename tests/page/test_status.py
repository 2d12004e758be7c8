"""The line of speed and memory, and what it says of a server that is busy or away."""

import json

import pytest
from helpers.browser import every_look
from helpers.page_checks import axe
from helpers.page_talk import opened, replied, say
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

LOADING = {
    "status": "loading",
    "error": {"message": "the model is being loaded"},
    "progress": {"bytes": 3 << 29, "total": 5 << 30},
}


@pytest.fixture
def answers(open_page, server):
    """The page of a server whose /health answers what `say` is told; None: it is not there."""
    page = open_page(server.url, allow=["ERR_FAILED"])
    answer = {"status": "ok", "deaths": 0, "memory": 1 << 30}

    def health(route):
        if answer["now"] is None:
            route.abort()
        else:
            route.fulfill(body=json.dumps(answer["now"]))

    answer["now"] = dict(answer)
    page.route("**/health", health)
    page.say = lambda now: answer.update(now=now)
    return page


def figure(page, name):
    return page.locator(".status-figures > div").filter(has_text=name).locator("dd")


def test_figures_of_a_reply(page):
    opened(page)
    expect(figure(page, "Memory")).to_contain_text("MiB")
    say(page, "What is the capital of Peru?")
    replied(page)
    for name in ("Speed", "First token", "Drafts accepted"):
        expect(figure(page, name)).to_have_count(1)
    expect(figure(page, "Context")).to_contain_text(" of 512")
    page.reload()
    expect(figure(page, "Context")).to_contain_text(" of 512")


def test_loading_has_a_bar_of_bytes(answers):
    answers.say(LOADING)
    opened(answers)
    bar = answers.get_by_role("progressbar", name="Loading: 1.5 GiB of 5.0 GiB")
    expect(bar).to_have_attribute("value", str(3 << 29))
    expect(answers.locator("#announced")).to_contain_text("Loading")
    answers.say({"status": "ok"})
    expect(bar).to_have_count(0)


def test_a_server_that_is_gone_comes_back(answers):
    answers.say(None)
    opened(answers)
    expect(answers.locator("#status")).to_contain_text("does not answer")
    expect(answers.locator("#status")).to_contain_text("Nothing is lost")
    answers.say({"status": "down", "error": {"message": "it died three times"}})
    expect(answers.locator("#status")).to_contain_text("it died three times")
    answers.say({"status": "ok"})
    expect(answers.locator("#status")).not_to_contain_text("Nothing is lost")
    expect(answers.locator("#announced")).to_contain_text("ready")


def test_a_prompt_that_is_read_has_a_bar_of_tokens(page):
    opened(page)
    shown = page.evaluate(
        """async () => {
            const { App } = await import("/page/app.js");
            const { mountStatus } = await import("/page/status.js");
            const root = document.createElement("div");
            const api = { health: async () => ({ status: "ok" }) };
            const app = new App(api, null);
            mountStatus(app, root);
            const turn = { id: "t", text: "" };
            const progress = { total: 4096, processed: 1024 };
            app.generations.set("t", { turn, progress, tree: app.tree, on() {} });
            app.emit("generation", app.generation);
            return [root.textContent, root.querySelector("progress").position];
        }"""
    )
    assert shown == ["Reading the prompt: 1,024 of 4,096 tokens", 0.25]


@every_look
def test_status_in_every_look(answers, look, screenshot):
    answers.say(LOADING)
    opened(answers)
    expect(answers.get_by_role("progressbar")).to_be_visible()
    screenshot(answers)
    assert axe(answers) == []
