"""The field in which the next message is written."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow


@pytest.fixture
def field(page):
    page.goto("/")
    expect(page.locator(".empty-example").last).to_be_enabled()
    return page.get_by_label("Message", exact=True)


def test_enter_sends_and_shift_enter_begins_a_line(page, field):
    field.fill("What is")
    field.press("Shift+Enter")
    field.press_sequentially("the capital of Peru?")
    height = field.bounding_box()["height"]
    field.press("Enter")
    expect(page.locator(".turn-user .turn-body")).to_have_text("What is\nthe capital of Peru?")
    expect(field).to_have_value("")
    assert field.bounding_box()["height"] < height
    expect(field).to_be_focused()


def test_enter_that_ends_a_composition_does_not_send(page, field):
    field.fill("にほん")
    field.evaluate(
        """(field) => field.dispatchEvent(new KeyboardEvent("keydown", {
            key: "Enter", isComposing: true, bubbles: true, cancelable: true }))"""
    )
    expect(page.locator(".turn")).to_have_count(0)
    expect(field).to_have_value("にほん")


def test_what_was_not_sent_is_there_after_a_reload(page, field):
    field.fill("What is the capital of Peru?")
    field.press("Enter")
    expect(page.locator(".turn-assistant")).to_have_attribute("aria-busy", "false")
    field.fill("A half-written")
    page.get_by_role("button", name="New conversation").click()
    expect(field).to_have_value("")
    field.fill("Another")
    page.reload()
    expect(field).to_have_value("Another")
    page.get_by_role("link", name="What is the capital of Peru?").or_(
        page.get_by_role("button", name="What is the capital of Peru?", exact=True)
    ).first.click()
    expect(field).to_have_value("A half-written")
    field.fill("")
    page.reload()
    expect(field).to_have_value("")


def test_nothing_is_sent_before_there_is_a_model(open_page, server):
    page = open_page(server.url, allow=["status of 503"])
    page.route("**/v1/models", lambda route: route.fulfill(status=503, json={"error": {}}))
    page.route("**/health", lambda route: route.fulfill(json={"status": "loading"}))
    page.goto("/")
    field = page.get_by_label("Message", exact=True)
    field.fill("Early.")
    field.press("Enter")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.locator("#composer-hint")).to_contain_text("are being loaded")
    expect(field).to_have_value("Early.")


def test_a_long_text_grows_the_field_only_so_far(page, field):
    field.fill("A line.\n" * 400)
    assert field.bounding_box()["height"] < 0.45 * 800
