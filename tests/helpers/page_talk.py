"""What the page and its server said to each other, and what the page keeps of it."""

import json

from playwright.sync_api import expect

COMPLETIONS = "/v1/chat/completions"
CONTROL = f"{COMPLETIONS}/control"


def bodies(page, path=COMPLETIONS):
    """A list that gets the bodies of the requests to a path."""
    sent = []

    def note(request):
        if request.url.endswith(path):
            sent.append(json.loads(request.post_data))

    page.on("request", note)
    return sent


def opened(page, path="/"):
    """The page, once it knows its models."""
    page.goto(path)
    expect(page.locator("#model")).to_have_value("atlas")
    return page


def say(page, text):
    """Send a message, whose reply begins."""
    replies = page.locator(".turn-assistant")
    n = replies.count()
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    expect(replies).to_have_count(n + 1)


def replied(page):
    """Wait until the last reply has come."""
    expect(page.locator(".turn-assistant").last).to_have_attribute("aria-busy", "false")


def kept(page):
    """The open conversation as the browser keeps it: its turns, replies with their `tokens`."""
    return page.evaluate(
        """async () => {
            const { openStore } = await import("/page/store.js");
            const store = await openStore();
            const tree = await store.load(location.hash.slice(1));
            const about = { ...tree.about };
            const turns = tree.path();
            return Promise.all(
                turns.map(async (turn) => ({ ...turn, about, tokens: await store.tokens(turn.id) }))
            );
        }"""
    )
