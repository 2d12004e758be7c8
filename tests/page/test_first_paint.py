"""What the first paint waits for, and what a browser is told to forbid."""

import re
from urllib.parse import urlsplit

import pytest

from edge_eft.server.page import FOLDER

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
PAINTED = """() => new Promise((resolve) => new PerformanceObserver((list) => {
    if (list.getEntriesByName("first-contentful-paint").length) resolve(true);
}).observe({ type: "paint", buffered: true }))"""


def test_the_first_paint_needs_the_document_and_its_styles_alone(page):
    """Scripts that never come do not keep the shell from the screen; no style waits for another."""
    waiting = []
    page.route("**/*.js", lambda route: waiting.append(route))
    page.goto("/", wait_until="commit")
    assert page.evaluate(PAINTED)
    assert page.get_by_role("heading", name="edge_eft").is_visible()
    blocking = page.evaluate(
        """performance.getEntriesByType("resource")
            .filter((one) => one.renderBlockingStatus === "blocking").map((one) => one.name)"""
    )
    assert blocking
    named = re.findall(r'rel="stylesheet" href="([^"]+)"', (FOLDER / "index.html").read_text())
    assert {url.removeprefix(page.url.rstrip("/")) for url in blocking} == set(named)
    for path in FOLDER.rglob("*.css"):
        assert not re.search(r"@import|url\(", path.read_text("utf-8")), path.name
    assert waiting


def test_a_browser_is_told_exactly_what_to_forbid(page):
    policies = {}
    page.on("response", lambda one: policies.update({urlsplit(one.url).path: one.headers}))
    page.goto("/")
    page.get_by_role("textbox", name="Message").wait_for()
    files = ["/", *(path for path in policies if path.startswith("/page/"))]
    assert {"/page/app.js", "/page/style.css", "/page/vendor/purify.js"} < set(files)
    assert {policies[path].get("content-security-policy") for path in files} == {POLICY}


@pytest.mark.slow
def test_a_page_that_was_left_alone_asks_for_nothing_but_its_server(page):
    """It does not ask on and on: what it asks while nobody does anything is /health, seldom."""
    asked = []
    page.goto("/")
    page.get_by_role("combobox", name="Model", exact=True).wait_for()
    page.wait_for_load_state("networkidle")
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(700)
    assert asked == []
