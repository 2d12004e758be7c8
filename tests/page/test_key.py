"""A server that wants a key: the person is asked once, and again where it was wrong."""

import pytest
from helpers.page_checks import axe
from helpers.page_talk import ask
from helpers.scripted_server import scripted
from playwright.sync_api import expect

KEY = "right-key"


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A server that wants a key."""
    with scripted(["Lima."], tmp_path_factory.mktemp("script"), api_keys=(KEY,)) as server:
        yield server


@pytest.fixture
def asked(locked, open_page):
    """A page that asks for the key."""
    page = open_page(locked.url, allow=["status of 401"])
    page.goto("/")
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    return page


def test_a_wrong_key_is_asked_for_again_and_a_right_one_is_kept(asked):
    dialog = asked.get_by_role("dialog", name="API key")
    expect(dialog.get_by_label("Key", exact=True)).to_be_focused()
    assert axe(asked) == []
    asked.keyboard.type("wrong")
    asked.keyboard.press("Enter")
    expect(dialog).to_contain_text("The server does not take that key.")
    expect(dialog.get_by_label("Key", exact=True)).to_be_focused()
    asked.keyboard.type(KEY)
    asked.keyboard.press("Enter")
    expect(asked.locator("#model")).to_have_value("atlas")
    asked.reload()
    expect(asked.locator("#model")).to_have_value("atlas")
    expect(dialog).to_have_count(0)


def test_who_has_no_key_now_can_look_around_and_give_one_later(asked):
    asked.keyboard.press("Escape")
    expect(asked.get_by_role("dialog")).to_have_count(0)
    asked.get_by_role("button", name="New conversation").click()
    asked.get_by_role("button", name="Enter the API key").click()
    expect(asked.get_by_label("Key", exact=True)).to_be_focused()
    asked.keyboard.type(KEY)
    asked.keyboard.press("Enter")
    expect(asked.locator("#model")).to_have_value("atlas")
    expect(asked.get_by_role("button", name="Enter the API key")).to_have_count(0)


def test_however_many_requests_wait_the_person_is_asked_once(asked):
    script = """async () => {
      const { askForKey } = await import("/page/key.js");
      const { Api } = await import("/page/api.js");
      const many = [1, 2, 3].map(() => new Api(askForKey).models());
      await new Promise((resolve) => setTimeout(resolve, 300));
      window.answers = Promise.all(many).then((all) => all.map(([model]) => model.id));
      return document.querySelectorAll("dialog.key").length;
    }"""
    assert asked.evaluate(script) == 1
    asked.keyboard.type(KEY)
    asked.keyboard.press("Enter")
    assert asked.evaluate("window.answers") == ["atlas"] * 3


def test_the_key_is_in_no_address_and_in_nothing_that_outlives_the_tab(asked):
    addresses = []
    asked.on("request", lambda request: addresses.append(request.url))
    asked.keyboard.type(KEY)
    asked.keyboard.press("Enter")
    assert ask(asked, "What is the capital of Peru?") == "Lima."
    script = """async () => {
        const kept = [location.href, document.cookie, JSON.stringify({ ...localStorage })];
        for (const { name } of await indexedDB.databases()) {
            const open = indexedDB.open(name);
            await new Promise((resolve) => (open.onsuccess = resolve));
            for (const kind of open.result.objectStoreNames) {
                const all = open.result.transaction(kind).objectStore(kind).getAll();
                await new Promise((resolve) => (all.onsuccess = resolve));
                kept.push(JSON.stringify(all.result));
            }
        }
        return kept.concat(await caches.keys());
    }"""
    kept = asked.evaluate(script)
    assert any("capital of Peru" in one for one in kept)
    assert not any(KEY in one for one in [*kept, *addresses])
