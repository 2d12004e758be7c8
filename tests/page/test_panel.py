"""The panel beside the conversation: when it is there, when it goes, what its buttons do."""

import pytest
from helpers.browser import LOOKS, every_look
from helpers.page_checks import axe
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

PHONE = pytest.mark.parametrize("look", LOOKS[2:3], indirect=True, ids=str)


@pytest.fixture
def tokens(page):
    """A conversation of one reply of atlas, token by token."""
    page.goto("/")
    expect(page.locator(".empty-example").last).to_be_enabled()
    page.get_by_label("Message", exact=True).fill("What is the capital of Peru?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn-assistant")).to_have_attribute("aria-busy", "false")
    page.get_by_role("button", name="Tokens", exact=True).click()
    expect(page.locator(".token")).not_to_have_count(0)
    return page


def panel(page):
    return page.locator("#panel")


def token(page, n):
    return page.locator(".token").nth(n)


def test_pointing_at_a_token_moves_no_text_and_shows_it(tokens):
    expect(panel(tokens)).to_contain_text("Point at a token")
    before = token(tokens, 2).bounding_box()
    token(tokens, 2).hover()
    expect(panel(tokens)).to_contain_text("3 of ")
    assert token(tokens, 2).bounding_box() == before


def test_it_closes_by_escape_and_comes_back_when_it_is_asked_for(tokens):
    token(tokens, 1).click()
    expect(panel(tokens)).to_contain_text("kept")
    tokens.keyboard.press("Escape")
    expect(panel(tokens)).to_contain_text("Point at a token")
    token(tokens, 1).click()
    panel(tokens).get_by_role("button", name="Close").click()
    expect(panel(tokens)).to_be_hidden()
    expect(token(tokens, 1)).to_be_focused()
    token(tokens, 3).hover()
    expect(panel(tokens)).to_be_hidden()
    tokens.keyboard.press("Enter")
    expect(panel(tokens)).to_contain_text("2 of")


@PHONE
def test_on_a_phone_it_is_a_sheet_that_leaves_the_token_in_sight(tokens, look):
    expect(panel(tokens)).to_be_hidden()
    token(tokens, 1).tap()
    expect(panel(tokens)).to_be_visible()
    place, sheet = token(tokens, 1).bounding_box(), panel(tokens).bounding_box()
    assert place["y"] + place["height"] <= sheet["y"] + 1
    assert sheet["x"] >= 0
    assert sheet["x"] + sheet["width"] <= look.width
    panel(tokens).get_by_role("button", name="Close").tap()
    expect(panel(tokens)).to_be_hidden()


@pytest.mark.parametrize(("width", "height"), [(900, 800), (740, 360), (844, 390)])
def test_a_small_window_has_room_for_the_text_beside_it(tokens, width, height):
    tokens.set_viewport_size({"width": width, "height": height})
    fold = tokens.get_by_role("button", name="More" if width <= 760 else "Mix")
    expect(fold).to_have_attribute("aria-expanded", "false" if width <= 760 else "true")
    if width <= 760:
        fold.click()
    expect(tokens.get_by_role("slider", name="brief")).to_be_visible()
    token(tokens, 2).click()
    expect(panel(tokens)).to_contain_text("kept")
    expect(token(tokens, 2)).to_be_in_viewport(ratio=1)
    assert tokens.locator("#turns").bounding_box()["height"] > 180
    assert tokens.evaluate("document.documentElement.scrollWidth") == width


def test_above_a_phones_keyboard_there_is_the_field(tokens):
    tokens.set_viewport_size({"width": 360, "height": 420})
    tokens.get_by_role("button", name="More").click()
    expect(tokens.get_by_label("Message", exact=True)).to_be_in_viewport(ratio=1)
    assert tokens.locator("#turns").bounding_box()["height"] > 100


def test_the_legend_is_there_once_in_line_with_the_text(tokens):
    tokens.set_viewport_size({"width": 1920, "height": 800})
    expect(panel(tokens)).to_contain_text("Point at a token")
    legend = tokens.get_by_text("The delta made it")
    expect(legend).to_have_count(1)
    text = tokens.locator(".turns > div:has(.token)")
    assert legend.bounding_box()["x"] == text.bounding_box()["x"]


@every_look
def test_it_is_for_everybody(tokens, look, screenshot):
    token(tokens, 0).press("Enter")
    expect(panel(tokens)).to_contain_text("1 of")
    width = "[document.documentElement.scrollWidth, innerWidth]"
    assert tokens.evaluate(width) == [look.width] * 2
    screenshot(tokens)
    assert axe(tokens) == []


def test_an_alternative_begins_another_reply(tokens):
    token(tokens, 0).click()
    button = panel(tokens).get_by_role("button", name="Continue from this: ").first
    taken = button.get_attribute("aria-label").removeprefix("Continue from this: ")
    button.click()
    expect(tokens.locator(".turn-assistant")).to_have_attribute("aria-busy", "false")
    expect(tokens.locator(".turn-assistant")).to_contain_text("2 / 2")
    expect(tokens.locator(".turn-assistant")).to_be_focused()
    expect(token(tokens, 0)).to_have_text(taken.replace("·", " "))
    expect(panel(tokens)).to_contain_text("Point at a token")


def test_other_weights_act_from_the_token_on(tokens):
    token(tokens, 1).click()
    first = token(tokens, 0).inner_text()
    panel(tokens).get_by_label("α of the replay").fill("0.25")
    panel(tokens).get_by_role("button", name="Replay from here").click()
    expect(tokens.locator(".turn-assistant")).to_contain_text("2 / 2")
    expect(tokens.locator(".turn-assistant")).to_have_attribute("aria-busy", "false")
    assert tokens.locator(".tokens").inner_text().startswith(f"{first}α 0.25")
    token(tokens, 1).click()
    expect(panel(tokens)).to_contain_text("Emulated, α 0.25")
    token(tokens, 0).click()
    expect(panel(tokens)).to_contain_text("Emulated, α 1")
