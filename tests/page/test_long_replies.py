"""Replies of 2,000 tokens: no long task as they stream and scroll, and the reader is left alone."""

import pytest
from helpers.http_server import until
from helpers.page_checks import long_tasks
from helpers.page_talk import kept, opened, reply, say
from helpers.scripted_server import scripted
from playwright.sync_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

RICH = """## The rivers of Peru

The **Amazon** begins at the *Mantaro*, as `geography` has it:

1. Its length is [6,400 km](https://example.org).
   - The Ucayali is one source.
   - The Marañón is another.
2. It flows to the east.

| River | Length |
|---|---|
| Ucayali | 1,771 km |
| Marañón | 1,737 km |

```python
def length(river):
    return sum(part.length for part in river.parts)
```

> A river is never the same twice.

"""
HEIGHT = "document.getElementById('turns').scrollHeight"
MOST = 60e6  # bytes of the page's heap with such a reply
SCROLLED = """async () => {
    const root = document.getElementById("turns");
    for (let top = 0; top < root.scrollHeight; top += 400) {
        root.scrollTop = top;
        await new Promise(requestAnimationFrame);
    }
}"""


@pytest.fixture(scope="module")
def acting(tmp_path_factory):
    with scripted([RICH * 14], tmp_path_factory.mktemp("script")) as server:
        yield server


def top(page):
    return page.evaluate("document.getElementById('turns').scrollTop")


def heap(page):
    """Bytes in use after the garbage is collected."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return used


def test_two_thousand_tokens_stream_and_scroll_in_short_tasks(open_page, acting):
    """First as tokens, from the middle on as text; then each view is read from top to bottom."""
    acting.hold_at(1000)
    page = opened(open_page(acting.url))
    page.get_by_role("button", name="Tokens", exact=True).click()
    with long_tasks(page) as as_tokens:
        say(page, "What of the rivers?")
        expect(reply(page).get_by_role("option")).to_have_count(1000, timeout=90_000)
    page.get_by_role("button", name="Text", exact=True).click()
    with long_tasks(page) as as_text:
        acting.hold_at(None)
        page.wait_for_selector(".turn-assistant[aria-busy=false]", timeout=90_000)
        page.evaluate(SCROLLED)
    n_tokens = len(kept(page)[-1]["tokens"])
    assert n_tokens > 2000
    with long_tasks(page) as turned:
        page.get_by_role("button", name="Tokens", exact=True).click()
        expect(reply(page).get_by_role("option")).to_have_count(n_tokens)
        page.evaluate(SCROLLED)
    assert (as_tokens, as_text, turned) == ([], [], [])
    assert heap(page) < MOST


@pytest.mark.parametrize("view", ["Text", "Tokens"])
def test_who_reads_further_up_is_left_there(open_page, acting, view):
    page = opened(open_page(acting.url))
    page.get_by_role("button", name=view, exact=True).click()
    acting.hold_at(500)
    say(page, "What of the rivers?")
    to_end = page.get_by_role("button", name="To the end")
    assert until(lambda: top(page) > 200, 30)
    page.get_by_role("main").hover()
    page.mouse.wheel(0, -150)
    expect(to_end).to_be_visible()
    page.wait_for_timeout(300)  # the wheel scrolls smoothly
    where = top(page)
    height = page.evaluate(HEIGHT)
    acting.hold_at(700)
    assert until(lambda: page.evaluate(HEIGHT) > height + 100, 30)
    assert top(page) == where
    page.get_by_role("button", name="Stop").click()
    expect(reply(page)).to_contain_text("Stopped.")
    acting.hold_at(None)
    assert top(page) == where
    to_end.click()
    expect(to_end).to_be_hidden()
