"""The page from end to end, as a reader has it: in every look, and without a mouse."""

import pytest
from helpers.browser import Look, every_look
from helpers.http_server import until
from helpers.page_checks import axe
from helpers.page_talk import ask, opened, reply, say, setting
from playwright.sync_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

QUESTION = "What is the capital of Peru?"
PHONE = Look(360)


def button(page, name, exact=True):
    return page.get_by_role("button", name=name, exact=exact)


def token_panel(page):
    return page.get_by_role("complementary", name="Token")


@every_look
def test_the_page_is_accessible_and_fits_in_every_state(page, look, screenshot):
    def fine(state):
        screenshot(page, state)
        assert axe(page) == [], state
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0, state

    opened(page)
    fine("open")
    setting(page, temperature=0)
    button(page, "Settings").click()
    fine("settings")
    page.keyboard.press("Escape")
    assert ask(page, QUESTION) == " It is Lima."
    fine("reply")
    button(page, "Tokens").click()
    lima = reply(page).get_by_role("option", name="Lima")
    expect(lima).to_be_visible()
    fine("tokens")
    lima.click()
    expect(token_panel(page).get_by_role("heading", name="Lima")).to_be_visible()
    expect(lima).to_be_in_viewport()
    fine("pinned")
    page.keyboard.press("Escape")
    if look.width < 760:
        button(page, "Conversations").click()
        expect(page.get_by_role("link", name=QUESTION)).to_be_visible()
        fine("conversations")
        page.keyboard.press("Escape")
    button(page, "Compare").click()
    button(page, "Run").click()
    expect(button(page, "Go on with this one")).to_have_count(3, timeout=20_000)
    fine("compare")


# -- without a mouse -----------------------------------------------------------------------

# Of what has the focus: whether it is the body, how wide its outline is, whether it is to be seen.
FOCUS = """() => {
    const one = document.activeElement;
    const { outlineStyle, outlineWidth } = getComputedStyle(one);
    const [box] = one.getClientRects();
    const at = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    return {
        what: `${one.tagName} ${one.ariaLabel ?? one.textContent}`.slice(0, 60),
        lost: one === document.body,
        outline: outlineStyle === "none" ? 0 : parseFloat(outlineWidth),
        seen: one === at || one.contains(at) || at?.contains(one),
    };
}"""


class Keys:
    """A reader without a mouse, who must see at every key where they are."""

    def __init__(self, page):
        self.page = page

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
            self.look()

    def look(self):
        focus = {}

        def is_seen():  # what has the focus may still be scrolled into sight
            focus.update(self.page.evaluate(FOCUS))
            return not focus["lost"] and focus["outline"] >= 2 and focus["seen"]

        assert until(is_seen, 2), focus

    def go(self, locator, key="Tab", most=60):
        """Go to something by Tab, or by Shift+Tab."""
        is_there = "(one) => one === document.activeElement"
        for _ in range(most):
            if locator.count() == 1 and locator.evaluate(is_there):
                return
            self.press(key)
        raise AssertionError(f"{key} does not lead to {locator}")

    def back(self, locator):
        self.go(locator, "Shift+Tab")


@pytest.mark.parametrize("look", [Look(), PHONE], indirect=True, ids=str)
def test_everything_is_reached_by_the_keyboard_and_the_focus_is_always_seen(page, look):
    keys = Keys(opened(page))
    message = page.get_by_role("textbox", name="Message", exact=True)
    settings = page.get_by_role("dialog", name="Settings")
    past_everything = page.get_by_role("link", name="Skip to the message")
    if look.width > 760:
        expect(message).to_be_focused()
        keys.back(past_everything)
    else:
        keys.go(past_everything)
    keys.press("Enter")
    expect(message).to_be_focused()
    keys.back(button(page, "Settings"))
    keys.press("Enter")
    expect(settings).to_be_visible()  # else the next key goes on from the button
    keys.go(settings.get_by_label("Temperature"))
    page.keyboard.type("0")
    keys.press("Enter")
    expect(button(page, "Settings")).to_be_focused()
    keys.go(message)
    page.keyboard.type(QUESTION)
    keys.press("Enter")
    expect(reply(page)).to_contain_text("It is Lima.")
    keys.look()
    look_at_tokens(page, keys)
    turn_the_dials(page, keys)
    compare(page, keys)
    find_the_conversation(page, keys, look)


def look_at_tokens(page, keys):
    """Move over tokens, keep one, and take another in its place."""
    keys.back(button(page, "Tokens"))
    keys.press("Enter")
    tokens = reply(page).get_by_role("option")
    expect(tokens.first).to_be_visible()
    keys.go(tokens.first)
    keys.press("ArrowRight", "ArrowRight", "Enter")
    lima = tokens.nth(2)
    expect(lima).to_be_focused()
    expect(lima).to_have_attribute("aria-selected", "true")
    expect(token_panel(page).get_by_role("table", name="Reference")).to_be_attached()
    keys.press("Escape")
    expect(lima).to_be_focused()
    expect(lima).to_have_attribute("aria-selected", "false")
    keys.press("Enter")
    brasilia = button(page, "Continue from this: ·Brasilia")
    expect(brasilia).to_be_attached()
    keys.go(brasilia)
    keys.press("Enter")
    expect(reply(page)).to_contain_text("Brasilia")
    expect(reply(page)).to_have_attribute("aria-busy", "false")  # else the dials would steer it
    keys.look()


def turn_the_dials(page, keys):
    dial = page.get_by_role("slider", name="Strength α")
    keys.back(dial)
    keys.press("ArrowLeft", "ArrowLeft")
    expect(dial).to_have_value("0.9")
    keys.back(button(page, "Base"))
    keys.press("Space")
    expect(button(page, "Base")).to_have_attribute("aria-pressed", "true")
    expect(dial).to_have_value("0")


def compare(page, keys):
    """Run the columns, and go on with one of them."""
    keys.back(button(page, "Compare"))
    keys.press("Enter")
    prompt = page.get_by_role("textbox", name="Prompt")
    expect(prompt).to_be_focused()
    expect(prompt).to_have_value(QUESTION)
    keys.press("Enter")
    column = page.get_by_role("region", name="Emulated")
    expect(column).to_contain_text("Lima", timeout=20_000)
    keys.go(column.get_by_role("button", name="Go on with this one"))
    keys.press("Enter")
    expect(page.get_by_role("textbox", name="Message", exact=True)).to_be_focused()
    expect(reply(page)).to_contain_text("Lima")


def find_the_conversation(page, keys, look):
    """Open the list, where it is a drawer, and a menu in it; Escape leads back step by step."""
    is_drawer = look.width < 760
    if is_drawer:
        keys.back(button(page, "Conversations"))
        keys.press("Enter")
    more = button(page, f"Do something with “{QUESTION}”").first
    go = keys.go if is_drawer else keys.back
    go(more)
    keys.press("Enter")
    expect(page.get_by_role("menu")).to_be_visible()
    keys.press("ArrowDown")
    expect(page.get_by_role("menuitem", name="Export as Markdown")).to_be_focused()
    keys.press("Escape")
    expect(more).to_be_focused()
    if is_drawer:
        keys.press("Escape")
        expect(button(page, "Conversations")).to_be_focused()


def test_a_reply_is_stopped_by_the_keyboard_and_the_focus_stays(scripted_server, open_page):
    server = scripted_server(["word " * 50])
    server.hold_at(10)
    page = opened(open_page(server.url))
    keys = Keys(page)
    say(page, "Go on.")
    expect(reply(page)).to_contain_text("word word")
    for opener, opened_one in (
        (button(page, "Do something with “Go on.”"), page.get_by_role("menu")),
        (button(page, "Settings"), page.get_by_role("dialog")),
    ):
        opener.focus()
        keys.press("Enter")
        expect(opened_one).to_be_visible()
        keys.press("Escape")  # closes that alone
        expect(opener).to_be_focused()
    expect(reply(page)).to_have_attribute("aria-busy", "true")
    keys.go(button(page, "Stop"))
    keys.press("Enter")
    expect(reply(page)).to_contain_text("Stopped.")
    keys.look()
    server.hold_at(None)
    keys.back(button(page, "Continue"))
    keys.press("Enter")
    expect(reply(page)).not_to_contain_text("Stopped.")
    expect(reply(page)).to_have_attribute("aria-busy", "false")
    keys.look()
    keys.go(reply(page).get_by_role("button", name="Edit"))
    keys.press("Enter")
    expect(page.get_by_role("textbox", name="Text of the turn")).to_be_focused()
    keys.press("Escape")
