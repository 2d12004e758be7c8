"""The list of conversations: what it offers, by mouse, by keyboard, on a phone, in two tabs."""

import json
import re
from datetime import datetime, timedelta

import pytest
from helpers.browser import Look, every_look
from helpers.kept_conversations import in_page, keep
from helpers.page_checks import axe
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

PHONE = pytest.mark.parametrize("look", [Look(360)], indirect=True, ids=str)
CLOSED = "the page was closed before the reply ended"


def row(page, title):
    return page.locator(".sidebar-row").filter(has_text=title)


def choose(page, title, action):
    """Open the menu of a conversation and choose from it."""
    row(page, title).get_by_role("button").click()
    page.get_by_role("menuitem", name=action, exact=True).click()


def titles(page):
    return page.locator(".sidebar-title").all_text_contents()


@pytest.fixture
def listed(page):
    """A page that has two conversations, the second of which is open."""
    page.goto("/")
    ids = keep(page, ["What is the capital of Peru?", "Lima."], ["Why is the sky blue?", "It is."])
    page.goto(f"/#{ids[1]}")  # the page is there already: it opens another conversation
    expect(page.locator("[aria-current=page]")).to_have_text(re.compile("^Why is the sky blue"))
    page.ids = ids
    return page


def test_conversations_stand_under_the_days_they_were_used_on(page):
    page.goto("/")
    midnight = datetime.now().replace(hour=0, minute=0, second=1)
    days = [0, 1, 3, 40]
    times = [(midnight - timedelta(days=n)).timestamp() * 1000 for n in days]
    script = """const store = await openStore();
    for (const updated of given) await store.add(makeWhole([`${updated}`], { updated }));"""
    in_page(page, script, times)
    month = f"{midnight - timedelta(days=40):%B %Y}"
    groups = page.locator("#sidebar").get_by_role("heading")
    expect(groups).to_have_text(["Today", "Yesterday", "Last 7 days", month])


def test_another_conversation_is_opened_and_a_new_one_begun(listed):
    page = listed
    row(page, "capital of Peru").get_by_role("link").click()
    expect(page.locator("[aria-current=page]")).to_have_text(re.compile("capital of Peru"))
    expect(page).to_have_title("What is the capital of Peru? · edge_eft")
    expect(page.locator("#turns")).to_contain_text("Lima.")
    page.go_back()
    expect(page.locator("#turns")).to_contain_text("It is.")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("[aria-current=page]")).to_have_count(0)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    assert page.evaluate("location.hash") == ""


def test_search_looks_into_the_texts_as_one_types(listed):
    page = listed
    search = page.get_by_label("Search conversations")
    search.fill("lima")
    expect(page.locator(".sidebar-title")).to_have_text(["What is the capital of Peru?"])
    search.fill("nothing like it")
    expect(page.locator(".sidebar-none")).to_have_text("No conversation has these words.")
    search.fill("")
    expect(page.locator(".sidebar-row")).to_have_count(2)


def test_a_conversation_is_renamed_by_keyboard(listed):
    page = listed
    row(page, "capital of Peru").get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("menuitem", name="Delete")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.type("Geography")
    page.keyboard.press("Enter")
    expect(row(page, "Geography").get_by_role("link")).to_be_focused()
    choose(page, "Geography", "Rename")
    page.keyboard.type("Something else")
    page.keyboard.press("Escape")
    page.reload()
    expect(page.locator(".sidebar-row")).to_have_count(2)
    assert titles(page) == ["Why is the sky blue?", "Geography"]


def test_escape_closes_a_menu_and_goes_back_to_its_button(listed):
    button = row(listed, "capital of Peru").get_by_role("button")
    button.click()
    listed.keyboard.press("Escape")
    expect(listed.get_by_role("menu")).to_have_count(0)
    expect(button).to_be_focused()


def test_what_is_deleted_can_be_had_back(listed):
    page = listed
    choose(page, "Why is the sky blue?", "Delete")
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    assert titles(page) == ["What is the capital of Peru?"]
    assert page.evaluate("location.hash") == ""
    page.keyboard.press("Enter")
    expect(row(page, "Why is the sky blue?").get_by_role("link")).to_be_focused()
    expect(page.locator("#turns")).to_contain_text("It is.")
    choose(page, "capital of Peru", "Delete")
    page.get_by_role("button", name="Dismiss").click()
    page.reload()
    expect(page.locator(".sidebar-row")).to_have_count(1)
    expect(page.locator("#turns")).to_contain_text("It is.")


def test_exports_are_files_that_can_be_imported(listed, tmp_path):
    page = listed
    files = []
    for action in ("Export as JSON", "Export as Markdown", "Export as JSON with tokens"):
        with page.expect_download() as download:
            choose(page, "capital of Peru", action)
        name = download.value.suggested_filename
        assert name.startswith("what-is-the-capital-of-peru.")
        files.append(tmp_path / f"{len(files)}-{name}")
        download.value.save_as(files[-1])
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    assert len(json.loads(download.value.path().read_text("utf-8"))["conversations"]) == 2
    damaged = tmp_path / "damaged.json"
    damaged.write_bytes(files[0].read_bytes()[:-20])
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import…").click()
    chooser.value.set_files([*files, damaged])
    notice = page.locator(".sidebar-notice")
    expect(notice).to_contain_text("damaged.json was not imported: the file is cut off or damaged")
    expect(notice).to_contain_text("3 conversations imported.")
    expect(page.locator(".sidebar-row")).to_have_count(5)
    expect(page.locator("#turns")).to_contain_text("Lima.")


def test_another_tab_sees_what_changes_and_stays_where_it_is(listed):
    page = listed
    other = page.context.new_page()
    other.goto(f"/#{page.ids[0]}")
    expect(other.locator("#turns")).to_contain_text("Lima.")
    choose(page, "capital of Peru", "Rename")
    page.keyboard.type("Geography")
    page.keyboard.press("Enter")
    expect(row(other, "Geography").get_by_role("link")).to_have_attribute("aria-current", "page")
    expect(other).to_have_title("Geography · edge_eft")
    in_page(
        page,
        """const store = await openStore();
        const tree = await store.load(given);
        const values = { role: "user", text: "And of Chile?" };
        await store.saveTurn(tree.add(tree.about.leaf, values));""",
        page.ids[0],
    )
    expect(other.locator("#turns")).to_contain_text("And of Chile?")
    choose(page, "Geography", "Delete")
    expect(other.locator("#turns")).not_to_contain_text("Lima.")
    expect(other.locator(".sidebar-row")).to_have_count(1)
    expect(other.locator("[aria-current=page]")).to_have_count(0)


@PHONE
def test_on_a_phone_the_list_is_a_drawer(listed):
    page = listed
    opener = page.get_by_role("button", name="Conversations", exact=True)
    opener.click()
    current = page.locator("[aria-current=page]")
    expect(current).to_be_focused()
    expect(opener).to_have_attribute("aria-expanded", "true")
    assert page.evaluate("document.querySelector('.column').inert")
    row(page, "capital of Peru").get_by_role("button").click()
    page.keyboard.press("Escape")  # closes the menu alone
    expect(current).to_be_visible()
    page.keyboard.press("Escape")
    expect(opener).to_be_focused()
    expect(current).not_to_be_visible()
    opener.click()
    row(page, "capital of Peru").get_by_role("link").click()
    expect(page.locator("#turns")).to_contain_text("Lima.")
    expect(opener).to_have_attribute("aria-expanded", "false")
    opener.click()
    page.mouse.click(355, 400)
    expect(opener).to_be_focused()
    assert not page.evaluate("document.querySelector('.column').inert")


@every_look
def test_the_list_is_accessible_in_every_look(listed, look, screenshot):
    page = listed
    if look.width < 760:
        page.get_by_role("button", name="Conversations", exact=True).click()
    choose(page, "capital of Peru", "Delete")
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    row(page, "Why is the sky blue?").get_by_role("button").click()
    screenshot(page)
    inside = [line for line in axe(page) if re.search("sidebar|menu|drawer", line)]
    assert inside == []
    assert page.evaluate("document.documentElement.scrollWidth") <= look.width


def test_a_running_reply_is_marked_and_a_reload_loses_none_of_what_was_said(
    scripted_server, open_page
):
    server = scripted_server(["word " * 50])
    server.hold_at(10)
    page = open_page(server.url)
    page.goto("/")
    page.get_by_label("Message", exact=True).fill("Go on.")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(row(page, "Go on.")).to_contain_text("replying")
    expect(page.locator("#turns")).to_contain_text("word word")
    page.wait_for_timeout(600)  # it is saved twice a second
    page.get_by_role("button", name="New conversation").click()
    expect(row(page, "Go on.")).to_contain_text("replying")
    row(page, "Go on.").get_by_role("link").click()
    page.reload()
    expect(page.locator("#turns")).to_contain_text("word word")
    expect(page.locator("#turns")).to_contain_text(re.compile(CLOSED, re.IGNORECASE))
    expect(page.get_by_text("replying")).not_to_be_visible()
    server.hold_at(None)
