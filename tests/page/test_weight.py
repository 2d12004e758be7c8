"""What the page weighs, what is loaded later, and how little of a phone its bars take."""

import pytest
from helpers.browser import LOOKS
from helpers.page_talk import opened, replied, say
from playwright.sync_api import expect

from edge_eft.server.page import FOLDER

PHONE = pytest.mark.parametrize("look", LOOKS[2:3], indirect=True, ids=str)
# Bytes without the renderer of Markdown: what a conversation loads (150,000 were asked for), and
# everything that may be loaded later.
PLAIN, WHOLE = 140_000, 225_000
LATER = ("Compare", "Settings", "Tokens")


def is_renderer(name):
    return name.startswith(("vendor/", "markdown"))


@pytest.fixture
def loaded(page):
    """A list that gets the answers with the page's files, as they come."""
    answers = []

    def note(response):
        name = response.url.partition("/page/")[2]
        is_front = response.request.resource_type == "document"
        if is_front or (name and not is_renderer(name)):
            answers.append(response)

    page.on("response", note)
    return answers


def test_a_plain_page_is_light(page, loaded):
    say(opened(page), "What is the capital of Peru?")
    replied(page)
    assert sum(len(one.body()) for one in loaded) < PLAIN


def test_the_whole_page_is_light():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    kept = [path for path in files if not is_renderer(path.relative_to(FOLDER).as_posix())]
    assert sum(path.stat().st_size for path in kept) < WHOLE


def test_parts_are_loaded_when_they_are_asked_for_and_once(page, loaded):
    opened(page)
    for name in LATER:
        before = len(loaded)
        for _ in range(2):
            page.get_by_role("button", name=name, exact=True).click()
            page.wait_for_load_state("networkidle")
            if name == "Settings":
                page.get_by_role("button", name="Done").click()
        assert loaded[before:], name
    assert len(loaded) == len({one.url for one in loaded})


@pytest.mark.parametrize("name", LATER)
def test_a_part_that_cannot_be_loaded_is_said_and_tried_again(open_page, server, name):
    page = opened(open_page(server.url, allow=["Failed to load resource"]))
    style = "tokens" if name == "Tokens" else "compare" if name == "Compare" else "dialogs"
    page.route(f"**/{style}.css", lambda route: route.abort())
    button = page.get_by_role("button", name=name, exact=True)
    button.click()
    expect(page.locator("#problem")).to_contain_text("could not be loaded")
    expect(button).not_to_have_attribute("aria-pressed", "true")
    page.unroute(f"**/{style}.css")
    button.click()
    expect(page.locator("#problem")).to_be_hidden()
    if name == "Settings":
        expect(page.get_by_role("dialog")).to_be_visible()
    else:
        expect(button).to_have_attribute("aria-pressed", "true")


def test_tokens_are_shown_on_reload_as_they_were(page):
    say(opened(page), "What is the capital of Peru?")
    replied(page)
    page.get_by_role("button", name="Tokens", exact=True).click()
    expect(page.locator(".token")).not_to_have_count(0)
    page.reload()
    expect(page.locator(".token")).not_to_have_count(0)


def test_the_comparison_has_no_empty_panel(page):
    opened(page).get_by_role("button", name="Tokens", exact=True).click()
    expect(page.locator("#panel")).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#panel")).to_be_hidden()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#panel")).to_be_visible()


@PHONE
def test_on_a_phone_the_bars_leave_room(page):
    opened(page)
    height = "(bar) => bar.offsetHeight"
    assert page.locator("header.bar").evaluate(height) <= 56
    assert page.locator("#dials").evaluate(height) <= 96
    expect(page.locator(".dials-words")).to_be_hidden()
    page.get_by_role("button", name="More").tap()
    expect(page.locator(".dials-words")).to_be_visible()
    page.get_by_role("button", name="β: ").tap()
    page.get_by_role("button", name="More").tap()
    expect(page.get_by_role("button", name="β: ")).to_be_visible()  # what the slider is


@PHONE
def test_on_a_phone_a_token_that_is_looked_at_stays_in_sight_at_the_end(page):
    say(opened(page), "What is the capital of Peru?")
    replied(page)
    page.get_by_role("button", name="Tokens", exact=True).tap()
    token = page.locator(".token").first
    token.tap()
    sheet = page.locator("#panel")
    expect(sheet).to_be_visible()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    box, turns = token.bounding_box(), page.locator("#turns").bounding_box()
    assert turns["y"] <= box["y"]
    assert box["y"] + box["height"] <= turns["y"] + turns["height"]
    end = page.get_by_role("button", name="To the end")
    if end.is_visible():
        assert end.bounding_box()["y"] >= turns["y"] + turns["height"], "it covers no text"
