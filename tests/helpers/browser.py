"""A real browser, and pages in it that nothing may go wrong on."""

import contextlib
import os
import re
import shutil
import socket
import threading
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Error, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Look(NamedTuple):
    """How a reader has the page.

    Attributes:
        width: in CSS pixels; below 600 it is a phone, with touch and no mouse.
        scheme: "light" or "dark".
        motion: "no-preference" or "reduce".
    """

    width: int = 1280
    scheme: str = "light"
    motion: str = "no-preference"

    @property
    def options(self):
        """What playwright's `new_context` takes."""
        phone = self.width < 600
        return {
            "viewport": {"width": self.width, "height": 740 if phone else 800},
            "has_touch": phone,
            "is_mobile": phone,
            "color_scheme": self.scheme,
            "reduced_motion": self.motion,
        }

    def __str__(self):
        more = "-reduced" if self.motion == "reduce" else ""
        return f"{self.width}-{self.scheme}{more}"


LOOKS = [Look(width, scheme) for width in (1280, 360) for scheme in ("light", "dark")]
# A test that is run in each of these looks, in the two that differ in all with the quick tests; one
# without it is run in the first.
every_look = pytest.mark.parametrize(
    "look",
    [pytest.param(look, marks=[pytest.mark.slow] * (0 < i < 3)) for i, look in enumerate(LOOKS)],
    indirect=True,
    ids=str,
)


def executable():
    """The Chromium that the environment names, or else one of the path; None without one."""
    named = os.environ.get("EDGE_EFT_TEST_BROWSER")
    return next(filter(None, map(shutil.which, [named] if named else NAMES)), None)


@contextlib.contextmanager
def browsing():
    """A browser. Until it ends, asyncio runs no other loop on this thread."""
    path = executable()
    if path is None:
        pytest.skip("no browser: install chromium, or name one in EDGE_EFT_TEST_BROWSER")
    # root may not have a sandbox, and in containers everybody is root.
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        arguments = ["--disable-features=AutofillServerCommunication"]  # it asks of every form
        arguments += ["--no-sandbox"] if is_root else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Watch:
    """Notes what must not happen on the pages of a context.

    That is errors on the console, which every violation of the CSP is, too; exceptions that nobody
    catches; dialogs; crashes; requests to anywhere but the origin.

    Args:
        origin: of the server, such as "http://127.0.0.1:8080".
        allow: patterns of what is meant to happen in a test.
    """

    def __init__(self, context, origin, allow):
        self.seen = []
        self._origin, self._allow = origin, allow
        context.on("console", self._console)
        context.on("weberror", lambda error: self.note(f"exception: {error.error}"))
        context.on("dialog", self._dialog)
        context.on("request", self._request)
        context.on("page", lambda page: page.on("crash", lambda _: self.note("crash")))

    def note(self, what):
        """Add what happened."""
        self.seen.append(what)

    def _console(self, message):
        if message.type == "error":
            self.note(f"console: {message.text}")

    def _dialog(self, dialog):
        self.note(f"dialog: {dialog.type}: {dialog.message}")
        dialog.dismiss()

    def _request(self, request):
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and f"{url.scheme}://{url.netloc}" != self._origin:
            self.note(f"foreign request: {request.url}")

    def check(self):
        """Raise AssertionError with all that happened."""
        wrong = [what for what in self.seen if not any(re.search(p, what) for p in self._allow)]
        assert not wrong, "on the page: " + "\n".join(wrong)


class Outside:
    """A proxy that stands for the rest of the world, and notes who wanted to reach it.

    WebSockets come by here, of which the browser tells no request.
    """

    def __init__(self, note):
        self._note = note
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self):
        while True:
            client, _ = self._listener.accept()
            with client:
                client.settimeout(1)
                with contextlib.suppress(OSError):
                    line = client.recv(1000).decode("latin-1").partition("\r\n")[0]
                    if line == "close":
                        return
                    self._note(f"left the machine: {line or 'a connection without a word'}")

    def close(self):
        """End, after everything that has come."""
        with socket.create_connection(self._listener.getsockname()) as client:
            client.sendall(b"close")
            self._thread.join()
        self._listener.close()


@contextlib.contextmanager
def watched(browser, url, look=LOOKS[0], *, allow=(), **options):
    """A page in a context of its own; when it ends, what went wrong on it raises AssertionError.

    Args:
        url: of the server; paths are relative to it.
        allow: patterns of what is meant to go wrong, such as "status of 401".
        options: more of playwright's `new_context`, such as bypass_csp.
    """
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    seen = []
    outside = Outside(seen.append)
    proxy = {"server": outside.address, "bypass": urlsplit(url).netloc}
    try:
        context = browser.new_context(base_url=url, proxy=proxy, **look.options, **options)
        context.set_default_timeout(10_000)
        watch = Watch(context, origin, allow)
        try:
            page = context.new_page()
            yield page
            with contextlib.suppress(Error):  # events that are on their way come before an answer
                page.evaluate("0")
        finally:
            context.close()
    finally:
        outside.close()
    watch.seen += seen
    watch.check()
