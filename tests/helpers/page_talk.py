"""What the page and its server said to each other, and what the page keeps of it."""

import json

from playwright.sync_api import expect

from edge_eft import Weights

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
    expect(page.get_by_role("combobox", name="Model", exact=True)).to_have_value("atlas")
    return page


def setting(page, **values):
    """Change settings in their dialog: `setting(page, temperature=0, max_tokens=9)`."""
    page.get_by_role("button", name="Settings").click()
    dialog = page.get_by_role("dialog", name="Settings")
    for name, value in values.items():
        dialog.get_by_label(name.capitalize().replace("_", " "), exact=True).fill(str(value))
    dialog.get_by_role("button", name="Done").click()


def say(page, text):
    """Send a message, whose reply begins."""
    replies = page.get_by_role("article", name="Reply of")
    n = replies.count()
    page.get_by_role("textbox", name="Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    expect(replies).to_have_count(n + 1)


def reply(page):
    """The last reply."""
    return page.get_by_role("article", name="Reply of").last


def replied(page):
    """Wait until the last reply has come, and return what it says, as the page keeps it."""
    expect(reply(page)).to_have_attribute("aria-busy", "false", timeout=30_000)
    return kept(page)[-1]["text"]


def ask(page, text):
    """Send a message, and return the reply."""
    say(page, text)
    return replied(page)


def off_by(token, weights, deltas):
    """How far the emulation's log-probabilities of a token's candidates are from the weighted sum.

    They may all be off by the same, which is the sum's normaliser.

    Args:
        token: as the page keeps it.
        weights: plain data of `Weights`.
        deltas: the recipe's, name → weight.
    """
    coefficients = Weights.from_dict(weights).coefficients(deltas)
    rests = [
        logprobs["emulated"] - sum(c * logprobs[role] for role, c in coefficients.items() if c)
        for logprobs in (one["logprobs"] for one in token["candidates"])
        if min(logprobs.values()) > -9999
    ]
    assert len(rests) > 2
    return max(rests) - min(rests)


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
