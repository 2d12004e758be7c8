"""The harness: what must not happen on a page is seen when it does, and only then."""

import json
import re

import httpx
import pytest
from helpers.browser import LOOKS, Look, watched
from helpers.http_server import serving, until
from helpers.page_checks import axe, long_tasks
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

CSP = "default-src 'none'; script-src 'self'; img-src 'self'; require-trusted-types-for 'script'"


@pytest.fixture(scope="package")
def site():
    """The address of a page without a fault, whose body and script a query can replace."""

    async def index(request):
        body = request.query_params.get("body", "<h1>Fine</h1>")
        script = request.query_params.get("script", "")
        page = f"""<!doctype html><html lang="en"><title>A page</title>
            <link rel="icon" href="/icon"><meta name="viewport" content="width=device-width">
            <main>{body}</main><script src="/script?{script}"></script></html>"""
        headers = {} if "open" in request.query_params else {"Content-Security-Policy": CSP}
        return HTMLResponse(page, headers=headers)

    async def script(request):
        return Response(
            request.url.query and request.query_params["do"], media_type="text/javascript"
        )

    async def icon(request):
        return Response("<svg xmlns='http://www.w3.org/2000/svg'/>", media_type="image/svg+xml")

    routes = [Route("/", index), Route("/script", script), Route("/icon", icon)]
    with serving(Starlette(routes=routes)) as live:
        yield f"http://127.0.0.1:{live.port}"


def visit(browser, site, body="<h1>Fine</h1>", script="", then=lambda page: None, **options):
    """Open the page with this body and script, and end it."""
    asked = {"body": body, "script": str(httpx.QueryParams({"do": script}))}
    if options.pop("without_csp", False):
        asked["open"] = "1"
    with watched(browser, site, **options) as page:
        page.goto("/?" + str(httpx.QueryParams(asked)))
        then(page)


def test_a_page_without_a_fault_is_fine(browser, site):
    visit(browser, site, script="document.title = 'It ran'")


FAULTS = {
    "console.error('a word')": "console: a word",
    "throw new Error('a word')": "exception: .*a word",
    "Promise.reject(new Error('two words'))": "exception: .*two words",
    "alert('a word')": "dialog: alert: a word",
    "eval('1')": "violates .*script-src",
    "document.body.innerHTML = '<p>'": "TrustedHTML",
    "fetch('/icon')": "violates .*connect-src|default-src",
    "document.body.setAttribute('onclick', 'x()')": "violates .*event handler",
    "document.body.setAttribute('style', 'color: red')": "violates .*style-src|default-src",
    "new Image().src = 'http://elsewhere.invalid'": "violates .*img-src",
    "window.open('/nowhere')": "status of 404",
}


def faults(browser, site, **options):
    """What is seen of a page on which everything goes wrong, each fault in a task of its own."""
    script = "".join(f"setTimeout(() => {{ {fault} }});" for fault in FAULTS)
    with pytest.raises(AssertionError) as raised:
        visit(browser, site, script=script, then=settle, **options)
    return str(raised.value).splitlines()


def settle(page):
    page.wait_for_timeout(200)


def test_what_goes_wrong_on_a_page_is_seen(browser, site):
    seen = faults(browser, site)
    for fault, pattern in FAULTS.items():
        assert any(re.search(pattern, line) for line in seen), (fault, seen)


def test_what_is_allowed_is_not_told_and_the_rest_is(browser, site):
    seen = faults(browser, site, allow=["console", "exception", "foreign"])
    assert seen == ["on the page: dialog: alert: a word"]


@pytest.mark.slow
def test_what_leaves_the_origin_is_seen(browser, site):
    body = """<img src="http://image.invalid/" alt=""><iframe src="http://frame.invalid/"></iframe>
        <link rel="stylesheet" href="https://style.invalid/"><img src="//127.0.0.1:1/" alt="">"""
    script = """new WebSocket("wss://socket.invalid"); navigator.sendBeacon("http://beacon.invalid/");
        setTimeout(() => { location = "http://navigation.invalid/"; }, 100);"""
    with pytest.raises(AssertionError) as raised:
        visit(browser, site, body, script, settle, without_csp=True, allow=["console"])
    for name in ("image", "frame", "style", "socket", "beacon", "navigation"):
        assert f"{name}.invalid" in str(raised.value)
    assert "127.0.0.1:1/" in str(raised.value)


def test_axe_finds_what_is_serious(browser, site):
    body = "<h1>Fine</h1><p style='color: #ccc; background: #fff'>pale</p><button></button>"
    found = []
    visit(browser, site, body, then=lambda page: found.extend(axe(page)), without_csp=True)
    assert [line.split(":")[0] for line in found] == [
        "button-name (critical)",
        "color-contrast (serious)",
    ]


def test_axe_runs_beside_the_policy(browser, site):
    found = []
    visit(browser, site, then=lambda page: found.append(axe(page)))
    assert found == [[]]


@pytest.mark.slow
def test_a_long_task_is_seen_and_a_wait_is_not(browser, site):
    script = """
        const busy = document.createElement("button");
        busy.textContent = "Busy";
        busy.onclick = () => {
            let x = 0;
            for (let i = 0; i < 8e6; i++) x = Math.sin(x + i);
        };
        document.querySelector("main").append(busy);"""

    def measured(page):
        with long_tasks(page) as tasks:
            page.wait_for_timeout(100)
        assert tasks == []
        with long_tasks(page) as tasks:
            page.get_by_role("button").click()
        assert len(tasks) == 1
        assert tasks[0].wall >= tasks[0].cpu

    visit(browser, site, script=script, then=measured)


def test_every_look_is_the_readers(browser, site):
    queries = ["(prefers-color-scheme: dark)", "(prefers-reduced-motion: reduce)"]
    queries += ["(pointer: coarse)", "(width: 360px)"]
    asked = f"{queries}.map((query) => matchMedia(query).matches)"
    seen = []
    for look in (LOOKS[0], Look(360, "dark", "reduce")):
        visit(browser, site, look=look, then=lambda page: seen.append(page.evaluate(asked)))
    assert seen == [[False] * 4, [True] * 4]


def test_a_picture_is_taken(site, open_page, screenshot, monkeypatch, tmp_path):
    monkeypatch.setattr("helpers.page_checks.SCREENSHOTS", tmp_path)
    page = open_page(site)
    page.goto("/")
    screenshot(page, "whole")
    assert (tmp_path / "a_picture_is_taken-whole-1280-light.png").stat().st_size > 1000


# -- the scripted server -------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>\x00 **é** 漢字 👩‍👩‍👧"


def ask(server, message="Go on.", **more):
    """The events of a streamed reply, as they come."""
    body = {"messages": [{"role": "user", "content": message}], "stream": True, **more}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))


def text_of(events):
    choices = [event["choices"][0] for event in events]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def test_a_reply_is_what_was_written_down_with_its_explanations(scripted_server):
    server = scripted_server([HOSTILE, "Two."])
    events = list(ask(server, explain=5))
    assert text_of(events) == HOSTILE
    entries = [e for event in events for e in event["choices"][0].get("explain", [])]
    assert b"".join(e["token"].encode() for e in entries).startswith(b"<")
    assert {"emulated", "base", "tuned:chat", "reference:chat"} <= set(entries[0])
    assert text_of(ask(server, "Say number 1.")) == "Two."
    assert text_of(ask(server, "Say number 2.")) == HOSTILE


def test_a_reply_waits_where_it_is_held(scripted_server):
    server = scripted_server(["word " * 50])
    server.hold_at(10)
    events = ask(server, explain=1)
    came = 0
    while came < 10:
        came += len(next(events)["choices"][0].get("explain", []))
    assert until(lambda: "requests_active 1" in httpx.get(f"{server.url}/metrics").text)
    server.hold_at(None)
    more = sum(len(event["choices"][0].get("explain", [])) for event in events)
    assert came < 20
    assert came + more > 50


@pytest.mark.slow
def test_a_connection_is_cut_and_an_engine_killed_in_mid_reply(scripted_server):
    server = scripted_server(["word " * 50])
    server.hold_at(10)
    events = ask(server)
    next(events)
    server.cut()
    with pytest.raises(httpx.RemoteProtocolError):
        list(events)
    events = ask(server)
    next(events)
    server.kill_engine()
    assert "SIGKILL" in list(events)[-1]["error"]["message"]
    server.hold_at(None)
    assert text_of(ask(server)).startswith("word word")
