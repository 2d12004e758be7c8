"""page: who is given the page at `/`, its files and no other, what a browser is told to forbid."""

import hashlib
import re

import pytest
from helpers.http_server import answer, everything, serving
from starlette.applications import Starlette

from edge_eft.server.app import OPEN_PATHS, not_routed
from edge_eft.server.guard import Guard
from edge_eft.server.ollama import HERE
from edge_eft.server.page import FOLDER, HEADERS, KINDS, routes

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
NAMES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def live():
    """The page as it is, behind a guard that asks for a key."""
    with serving(guarded(routes())) as server:
        yield server


def guarded(given):
    app = Starlette(routes=given, exception_handlers={404: not_routed, 405: not_routed})
    return Guard(app, keys=["key-1"], open_paths=OPEN_PATHS)


# -- / -------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "*/*, Text/HTML;q=0.1"])
def test_a_browser_is_given_the_page(live, accept):
    status, about, body = live.ask("/", Accept=accept)
    assert (status, body) == (200, (FOLDER / "index.html").read_bytes())
    assert about["content-type"] == "text/html; charset=utf-8"
    assert about["vary"] == "accept"


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/plain", "text/htmlx"])
def test_others_are_told_what_is_here_as_by_ollama(live, accept):
    status, about, body = live.ask("/", **({"Accept": accept} if accept else {}))
    assert (status, body.decode()) == (200, HERE)
    assert about["content-type"] == "text/plain; charset=utf-8"
    assert about["vary"] == "accept"


@pytest.mark.parametrize("accept", [BROWSER, "*/*"])
def test_head_says_the_same_without_a_body(live, accept):
    status, about, body = live.ask("/", "HEAD", Accept=accept)
    told = live.ask("/", Accept=accept)
    assert (status, body) == (200, b"")
    assert about == told[1] | {"date": about["date"]}


def test_nothing_is_sent_there(live):
    for path in ("/", "/page/app.js"):
        assert live.ask(path, "DELETE", X_Api_Key="key-1")[0] in (405, 415)


# -- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_served_by_its_kind_without_a_key(live, name):
    status, about, body = live.ask(f"/page/{name}")
    assert (status, body) == (200, (FOLDER / name).read_bytes())
    kind = KINDS.get(f".{name.rpartition('.')[2]}", "text/plain")
    assert about["content-type"].partition(";")[0] == kind
    assert about["x-content-type-options"] == "nosniff"


def test_a_name_without_a_kind_is_plain_text(tmp_path):
    kinds = {"LICENSE": "text/plain", "a/b.webmanifest": "application/manifest+json"}
    (tmp_path / "a").mkdir()
    for name in (*kinds, "index.html"):
        (tmp_path / name).write_text("x")
    with serving(guarded(routes(tmp_path))) as live:
        for name, kind in kinds.items():
            assert live.ask(f"/page/{name}")[1]["content-type"].partition(";")[0] == kind


@pytest.mark.parametrize(
    "path",
    [
        *("/page/", "/page/nothing", "/page/../page.py", "/page/..%2fpage.py", "/page/./app.js"),
        *("/page/%2e%2e/app.py", "/page//app.js", "/page/app.js/", "/page/app.js%00", "/page/.."),
        *("/page/..\\page.py", "/page/%5c..%5cpage.py", "/page//etc/passwd", "/page/APP.JS"),
        *("/page/app.js;a", "/page/C:/a", "/page/%c0%ae%c0%ae/app.py", "/page/../../v1/models"),
    ],
)
def test_what_is_no_file_of_the_page_is_nowhere(live, path):
    status, about, body = live.ask(path)
    assert status == 404, body
    assert about["content-type"] == "application/json"
    assert b"import" not in body


@pytest.mark.parametrize("path", ["/page", "/pagex", "//page/app.js", "/x/../page/app.js"])
def test_what_only_looks_like_a_path_of_the_page_needs_the_key(live, path):
    assert live.ask(path)[0] == 401


def test_a_file_that_comes_later_is_not_served(tmp_path):
    (tmp_path / "index.html").write_text("one")
    with serving(guarded(routes(tmp_path))) as live:
        (tmp_path / "index.html").write_text("another")
        (tmp_path / "key.txt").write_text("secret")
        assert live.ask("/", Accept=BROWSER)[2] == b"one"
        assert live.ask("/page/key.txt")[0] == 404


def test_a_foreign_host_or_page_gets_nothing(live):
    for path in ("/", "/page/app.js"):
        assert live.ask(path, Host="evil.example", Accept=BROWSER)[0] == 403
        assert live.ask(path, Origin="https://evil.example", Accept=BROWSER)[0] == 403


# -- what is kept --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/page/app.js"])
def test_what_a_browser_has_is_not_sent_again(live, path):
    _, about, body = live.ask(path, Accept=BROWSER)
    tag = about["etag"]
    assert tag == f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    assert about["cache-control"] == "no-cache"
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        status, again, body = live.ask(path, Accept=BROWSER, If_None_Match=known)
        assert (status, body) == (304, b"")
        assert {name: again[name] for name in ("etag", "cache-control")} == {
            "etag": tag,
            "cache-control": "no-cache",
        }
    for known in ('"x"', tag.strip('"'), ""):
        assert live.ask(path, Accept=BROWSER, If_None_Match=known)[0] == 200


def test_a_connection_serves_on_after_what_was_not_sent_again(live):
    tag = live.ask("/page/app.js")[1]["etag"]
    one = f"GET /page/app.js HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\n\r\n"
    two = one.replace(tag, '"x"').replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
    with live.connect((one + two).encode()) as client:
        first, second = re.split(rb"(?=HTTP/1\.1 200)", everything(client))
    assert answer(first)[0] == 304
    assert answer(second)[2] == (FOLDER / "app.js").read_bytes()


# -- what a browser is told to forbid --------------------------------------------------------


@pytest.mark.parametrize("name", ["index.html", "app.js", "icon.svg"])
def test_a_browser_is_told_what_to_forbid(live, name):
    _, about, _ = live.ask(f"/page/{name}")
    assert about["content-security-policy"] == HEADERS["Content-Security-Policy"].lower()
    policy = dict(rule.split(" ", 1) for rule in HEADERS["Content-Security-Policy"].split("; "))
    loads = ("script-src", "style-src", "img-src", "connect-src", "manifest-src")
    assert {name: policy[name] for name in loads} == dict.fromkeys(loads, "'self'")
    nothing = ("default-src", "base-uri", "form-action", "frame-ancestors")
    assert {name: policy[name] for name in nothing} == dict.fromkeys(nothing, "'none'")
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == "dompurify"
    assert about["referrer-policy"] == "no-referrer"
    assert about["cross-origin-opener-policy"] == "same-origin"
    assert about["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in about["permissions-policy"]
    assert "clipboard-write" not in about["permissions-policy"]


def test_the_page_names_no_address_of_elsewhere_and_holds_no_script_of_its_own():
    """The browser would refuse these; the tests in a browser see it for what scripts add."""
    text = (FOLDER / "index.html").read_text("utf-8")
    assert re.findall(r'(?:src|href)="(?!/page/|#)[^"]*"', text) == []
    assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", text) == []
    named = re.findall(r'(?:src|href)="/page/([^"]*)"', text)
    assert named
    assert set(named) <= set(NAMES)
