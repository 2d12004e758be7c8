"""What is measured on a page: accessibility, long tasks, pictures of it."""

import contextlib
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1]
SCREENSHOTS = TESTS.parent / "build" / "screenshots"
_MARKS, _MARK = "blink.user_timing", "long_tasks"
LONG = 50  # ms; what a reader notices, as browsers have it ("longtask")


@cache
def _axe():
    return (TESTS / "page" / "axe.min.js").read_text("utf-8")


def axe(page):
    """The serious and critical violations that axe-core finds on a page, a line for each.

    It runs in a world of its own, beside the page's scripts and outside its CSP.
    """
    session = page.context.new_cdp_session(page)
    try:
        frame = session.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        world = session.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "axe"})
        run = """axe.run(document, {
            resultTypes: ["violations"],
            rules: {"target-size": {enabled: true}},  // of WCAG 2.2, off by default
        }).then((result) => JSON.stringify(result.violations))"""
        done = session.send(
            "Runtime.evaluate",
            {
                "expression": f"{_axe()};\n{run}",
                "contextId": world["executionContextId"],
                "awaitPromise": True,
            },
        )
    finally:
        session.detach()
    assert "exceptionDetails" not in done, done
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {node['html']:.120}"
        for one in json.loads(done["result"]["value"])
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


class Task(NamedTuple):
    """A task of a page's main thread: milliseconds of processor, and of the clock."""

    cpu: float
    wall: float


@contextlib.contextmanager
def long_tasks(page, longer_than=LONG):
    """A list that has, afterwards, the tasks that kept the page's main thread busy for longer.

    What counts is the processor's time, from a trace of the browser: by the clock a task is as long
    as whoever shares the machine makes it. Looking at the page meanwhile makes tasks, too.
    """
    tasks = []
    browser = page.context.browser
    browser.start_tracing(categories=["-*", "disabled-by-default-devtools.timeline", _MARKS])
    try:
        page.evaluate(f"performance.mark('{_MARK}')")  # other pages' threads have none
        yield tasks
        page.evaluate(f"performance.mark('{_MARK}')")
    finally:
        events = json.loads(browser.stop_tracing())["traceEvents"]
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == _MARK}
    assert threads, "the trace has nothing of the page"
    for event in events:  # "X": a task that ended; the last one is the mark's own
        if (event["name"], event["ph"]) == ("RunTask", "X"):
            cpu, wall = event["tdur"] / 1000, event["dur"] / 1000
            if cpu > longer_than and (event["pid"], event["tid"]) in threads:
                tasks.append(Task(cpu, wall))


def take_screenshot(page, name):
    """Write a picture of what is seen of a page into `build/screenshots`."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", animations="disabled")
