"""The comparison: one prompt and seed, and a column for each model or strength of the delta."""

import httpx
import pytest
from helpers.browser import every_look
from helpers.page_checks import axe
from helpers.page_talk import COMPLETIONS, bodies, kept, opened, replied
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

PROMPT = "What is the capital of Peru?"


def compared(page):
    """The page with the comparison open."""
    opened(page).get_by_role("button", name="Compare").click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    return page


def run(page, prompt=PROMPT):
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.keyboard.press("Enter")


def ended(page):
    expect(page.get_by_role("button", name="Go on with this one")).to_have_count(
        columns(page).count()
    )


def columns(page):
    return page.locator(".column-reply")


def text(column):
    return column.locator(".column-text").inner_text()


def test_columns_have_one_prompt_and_seed(page, server):
    asked = bodies(compared(page))
    run(page)
    ended(page)
    assert [body["model"] for body in asked] == ["atlas:base", "atlas:tuned", "atlas"]
    assert len({body["seed"] for body in asked}) == 1
    assert {body["messages"][0]["content"] for body in asked} == {PROMPT}
    for column, body in zip(columns(page).all(), asked, strict=True):
        whole = {**body, "stream": False, "explain": None, "return_progress": None}
        answer = httpx.post(server.url + COMPLETIONS, json=whole, timeout=60).json()
        said = answer["choices"][0]["message"]["content"]
        assert text(column).split() == said.split()
        expect(column.locator(".column-state")).to_contain_text("tokens/s")


def test_another_alpha_runs_its_column_alone(page):
    asked = bodies(compared(page))
    run(page)
    ended(page)
    page.set_viewport_size({"width": 1280, "height": 300})  # the replies are longer than it
    page.get_by_role("button", name="+ Column").click()
    expect(page.get_by_role("button", name="Run")).to_be_in_viewport()
    ended(page)
    columns(page).last.get_by_label("α").fill("0.25")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Emulated, α 0.25")).to_be_visible()
    ended(page)
    assert [body.get("alpha") for body in asked] == [None, None, 1, 0.5, 0.25]
    assert len({body["seed"] for body in asked}) == 1
    columns(page).first.get_by_role("button", name="Remove").click()
    expect(columns(page)).to_have_count(3)


def test_a_column_becomes_a_conversation(page):
    run(compared(page))
    ended(page)
    said = text(columns(page).nth(1))
    columns(page).nth(1).get_by_role("button", name="Go on").click()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    expect(page.locator(".dials-words")).to_contain_text("small tuned model alone")
    page.reload()
    expect(page.locator(".turn-assistant .turn-body")).to_have_text(said)
    asked, reply = kept(page)
    assert (asked["text"], reply["text"].strip()) == (PROMPT, said)
    assert len(reply["tokens"]) == reply["n_tokens"] > 0


def test_a_column_goes_on_from_a_token(page):
    asked = bodies(compared(page))
    page.get_by_role("button", name="Tokens").click()
    run(page)
    ended(page)
    columns(page).last.locator(".token").nth(2).click()
    others = page.locator("#panel").get_by_role("button", name="Continue from this")
    with page.expect_request(f"**{COMPLETIONS}"):
        others.first.click()
    expect(page.locator("#compare")).to_be_hidden()
    replied(page)
    assert len(asked[-1]["prefix_ids"]) == 3
    assert asked[-1]["seed"] == asked[0]["seed"]


def test_more_columns_than_the_server_has_slots_wait(open_page, scripted_server):
    server = scripted_server(["word " * 8])
    page = open_page(server.url)
    asked = bodies(compared(page))
    for _ in range(2):
        page.get_by_role("button", name="+ Column").click()
    for alpha in ("0.5", "1.5"):
        expect(page.get_by_label(f"Emulated, α {alpha}", exact=True)).to_have_count(1)
    expect(columns(page).last).to_be_in_viewport(ratio=0.99)
    assert columns(page).last.bounding_box()["width"] > 300
    server.hold_at(3)
    run(page)
    expect(columns(page).filter(has_text="Waits for the others")).to_have_count(1)
    expect(columns(page).nth(3).locator(".column-text")).to_contain_text("w")
    assert len(asked) == 4
    server.hold_at(None)
    ended(page)
    assert len(asked) == 5
    server.hold_at(3)
    run(page)
    expect(columns(page).nth(3).locator(".column-text")).to_contain_text("w")
    page.get_by_role("button", name="Stop all").click()
    expect(page.get_by_role("button", name="Stop all")).to_be_hidden()
    expect(columns(page).filter(has_text="Stopped.")).to_have_count(4)


@every_look
def test_comparison_in_every_look(page, look, screenshot):
    run(compared(page))
    ended(page)
    screenshot(page)
    assert axe(page) == []
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
