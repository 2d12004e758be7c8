"""The file that `edge-eft inspect` writes, in a browser, from the disk."""

import re

import pytest
from helpers.browser import LOOKS, watched
from helpers.cli_tools import invoke
from helpers.page_checks import axe

from edge_eft.cli.inspect_page import page as written

QUESTION = "What is the capital of Peru?"


@pytest.fixture(scope="module")
def peru(tmp_path_factory):
    """The address of a file about a reply of four tokens."""
    file = tmp_path_factory.mktemp("pages") / "peru.html"
    result = invoke("inspect", "atlas", QUESTION, "-t", "0", "-n", "8", "--html", file)
    assert result.exit_code == 0, result.stderr
    return file.as_uri()


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS[::3], indirect=True, ids=str)
def test_a_reply_is_read_token_by_token_without_a_server(open_page, peru, look, screenshot):
    page = open_page(peru)
    page.goto(peru)
    tokens = page.get_by_role("option")
    assert tokens.all_inner_texts() == [" It", " is", " Lima", "."]
    assert re.search("3 of 4|2 of 4", page.get_by_role("img").get_attribute("aria-label"))
    panel = page.get_by_role("complementary")
    assert "Point at a token" in panel.inner_text()
    (tokens.nth(0).tap if look.width < 600 else tokens.nth(0).click)()
    assert "23 times likelier than under the base alone: 4.2 % → 96 %." in panel.inner_text()
    assert panel.get_by_role("button").count() == 0, "there is no server to go on with"
    assert axe(page) == []
    width = "[document.documentElement.scrollWidth, innerWidth]"
    assert page.evaluate(width) == [look.width] * 2
    screenshot(page)


def test_what_a_model_said_is_text(browser, tmp_path):
    evil = (
        '<img src="http://elsewhere.invalid" onerror="alert(1)"></script><script>alert(2)</script>'
    )
    logprobs = {"emulated": -0.1, "base": -3.0, "tuned:d": -0.1, "reference:d": -3.0}
    candidate = {"id": 1, "token": evil + "\u202e\x07", "logprobs": logprobs}
    views = {role: {"logprob": p} for role, p in logprobs.items()}
    entry = {**candidate, "drafted": None, **views, "candidates": [candidate]}
    reply = {"deltas": {"d": 1}, "marks": [{"at": 0, "weights": {}}], "explain": [entry]}
    file = tmp_path / "evil.html"
    file.write_text(written(evil, evil, evil, [(evil, evil)], reply), "utf-8")
    with watched(browser, file.as_uri()) as page:
        page.goto(file.as_uri())
        page.get_by_role("option").click()
        said = page.get_by_role("option").inner_text()
        assert said == f"{evil}⟨U+202E⟩⟨U+0007⟩"
        assert said.replace(" ", "·") in page.get_by_role("complementary").inner_text()
