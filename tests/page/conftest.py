"""A browser, a server, and a page for each test on which nothing may go wrong."""

import contextlib
import re

import pytest
from helpers.browser import LOOKS, browsing, watched
from helpers.live_server import start
from helpers.page_checks import SCREENSHOTS, take_screenshot
from helpers.scripted_server import scripted

_taken = []


@pytest.fixture(scope="package")
def browser():
    """One for all tests. It must end before others: its loop would be in the way of theirs."""
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="package")
def server():
    """A server of atlas, for all tests that leave it as it was."""
    server = start("atlas", "--slots", "4")
    yield server
    server.stop()


@pytest.fixture
def look(request):
    """How the reader has the page; `every_look` says it."""
    return getattr(request, "param", LOOKS[0])


@pytest.fixture
def servers():
    """Of one test; they end after its pages."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def open_page(browser, look, servers):
    """Opens pages of other servers, or with other options: url, and what `watched` takes."""
    with contextlib.ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(watched(browser, url, look, **options))


@pytest.fixture
def page(open_page, server):
    """An empty page; `page.goto("/")` opens the server's."""
    return open_page(server.url)


@pytest.fixture
def scripted_server(servers, tmp_path):
    """Starts the real server with an engine whose replies are these texts; see `scripted`."""
    return lambda texts, **options: servers.enter_context(scripted(texts, tmp_path, **options))


@pytest.fixture
def screenshot(request, look):
    """Takes a picture of a page, named by the test, a word of its own, and the look."""

    def take(page, name=""):
        test = request.node.originalname.removeprefix("test_")
        told = re.sub(r"\W+", "-", "-".join(filter(None, (test, name, str(look)))))
        take_screenshot(page, told)
        _taken.append(told)

    return take


def pytest_terminal_summary(terminalreporter):
    """Say where the pictures are."""
    if _taken:
        terminalreporter.write_line(f"{len(_taken)} screenshots are in {SCREENSHOTS}")
