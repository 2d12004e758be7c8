"""Replies steered in mid-reply and branched off, against what the engine says it did.

Most replies are the models' own, drawn at a temperature and with drafts, and held at some token.
"""

from itertools import pairwise

import pytest
from helpers.page_talk import ask, bodies, kept, off_by, opened, replied, reply, say, setting
from helpers.scripted_server import scripted
from playwright.sync_api import expect

from edge_eft import Emulator, Weights
from edge_eft.files.recipe_names import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

DELTAS = {"chat": 1.0, "brief": 0.0, "discreet": 0.0}
END = 2  # the end token's id
QUESTION = "What is the capital of Peru?"


@pytest.fixture(scope="module")
def acting(tmp_path_factory):
    """A server whose replies are the models' own."""
    with scripted([], tmp_path_factory.mktemp("own"), n_ctx=512) as server:
        yield server


@pytest.fixture(scope="module")
def emulator(atlas):
    """The same models, in this process."""
    with Emulator.load(load_recipe("atlas"), n_ctx=512) as emulator:
        yield emulator


@pytest.fixture
def chat(open_page, acting):
    """A conversation with a fixed seed, at temperature 0.8 and with drafts."""
    acting.hold_at(None)
    page = opened(open_page(acting.url))
    setting(page, temperature=0.8, seed=11)
    page.get_by_role("dialog").wait_for(state="hidden")
    return page


def alpha(page, value):
    field = page.get_by_label("Strength α, as a number")
    field.fill(str(value))
    field.press("Enter")


def beta(page, value):
    page.get_by_role("button", name="β: ").click()
    page.get_by_label("Strength β, as a number").fill(str(value))


def mix(page, **weights):
    for name, weight in weights.items():
        page.get_by_label(f"{name}, as a number").fill(str(weight))


def preset(page, name):
    page.get_by_role("button", name=name, exact=True).click()


# What is done, how the mark says it, and what holds from it on.
MOVES = [
    (lambda page: alpha(page, 0.3), "α 0.3", {"alpha": 0.3}),
    (lambda page: preset(page, "Emulated"), "α 1", {"alpha": 1}),
    (lambda page: beta(page, 1.3), "β 1.3", {"beta": 1.3}),
    (
        lambda page: mix(page, chat=0.7, brief=0.3),
        "β 1.3, chat 0.7 + brief 0.3",
        {"beta": 1.3, "mix": {"chat": 0.7, "brief": 0.3, "discreet": 0}},
    ),
    (lambda page: preset(page, "Tuned alone"), "small tuned model alone", {"only": "tuned:chat"}),
    (lambda page: preset(page, "Base"), "α 0", {"alpha": 0}),
]


def holds(token, weights):
    """Whether the candidates' log-probabilities under the emulation are the weighted sum."""
    if "only" in weights:
        role = weights["only"]
        return all(
            abs(one["logprobs"]["emulated"] - one["logprobs"][role]) < 1e-3
            for one in token["candidates"]
        )
    return off_by(token, weights, DELTAS) < 2e-3


def test_every_move_of_the_dials_acts_exactly_behind_its_mark(open_page, scripted_server):
    """Six in one reply, at α, β, the mix and each preset; also the words that were there before."""
    server = scripted_server(["It is a country of South America, by the sea. " * 12])
    page = opened(open_page(server.url))
    server.hold_at(6)
    say(page, "What is Peru?")
    expect(reply(page)).to_contain_text("It is")
    for number, (move, mark, _) in enumerate(MOVES, 1):
        move(page)
        expect(reply(page)).to_contain_text(mark)
        server.hold_at(6 + 12 * number)
    server.hold_at(None)
    replied(page)
    turn = kept(page)[-1]
    marks, tokens = turn["marks"], turn["tokens"]
    for at, token in enumerate(tokens):
        held = [mark for mark in marks if mark["at"] <= at][-1]
        assert holds(token, full(held["weights"])), (at, held)
    for before, mark in pairwise(marks):
        first = tokens[mark["at"]]
        assert not holds(first, full(before["weights"])), "the mark stands too late"
        assert not holds(tokens[mark["at"] - 1], full(mark["weights"])), "the mark stands too early"
        assert mark["offset"] == first["offset"]
    told = [weights for _, _, weights in MOVES]  # between them, a mix of which one weight was set
    assert [w for w in (full(mark["weights"]) for mark in marks[1:]) if w in told] == told
    page.get_by_role("button", name="Tokens").click()
    shown = reply(page).get_by_role("option", name="from here")
    expect(shown).to_have_count(len(marks) - 1)
    places = shown.evaluate_all("(all) => all.map((one) => Number(one.dataset.index))")
    assert places == [mark["at"] for mark in marks[1:]]


def full(weights):
    return {"only": "tuned:chat"} if weights.get("only") == "tuned" else weights


def test_a_dial_moved_while_a_real_reply_runs(chat, acting):
    """Drafts are accepted and refused meanwhile, so that tokens are there that nobody saw yet."""
    alpha(chat, 0.4)
    acting.hold_at(9)
    say(chat, QUESTION)
    expect(reply(chat)).to_have_attribute("aria-busy", "true")
    expect(reply(chat)).to_contain_text(" ")
    chat.wait_for_timeout(500)
    alpha(chat, 0)
    acting.hold_at(None)
    replied(chat)
    turn = kept(chat)[-1]
    assert [mark["weights"] for mark in turn["marks"]] == [{"alpha": 0.4}, {"alpha": 0}]
    at = turn["marks"][1]["at"]
    assert 0 < at < len(turn["tokens"])
    for i, token in enumerate(turn["tokens"]):
        assert holds(token, {"alpha": 0 if i >= at else 0.4}), i


# -- branches ------------------------------------------------------------------------------


def generated(emulator, body, prefix, weights):
    """What the engine gives after these tokens, for what the page asked."""
    options = {name: body[name] for name in ("temperature", "seed", "draft")}
    options |= {"prefix_ids": prefix, "weights": weights, "max_tokens": 400}
    return emulator.generate(body["messages"], **options)


def ids_of(made):
    """With the end token, as the page has them."""
    return [*made.tokens, *([END] if made.finish_reason == "stop" else [])]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_branch_is_what_the_engine_generates_for_its_prefix(chat, emulator, seed):
    """Another token, then other weights: each at a token in the middle, with the reply's seed."""
    asked = bodies(chat)
    setting(chat, seed=seed)
    alpha(chat, 0.1)
    whole = ask(chat, QUESTION)
    tokens = kept(chat)[-1]["tokens"]
    made = generated(emulator, asked[0], [], Weights.upscale(0.1))
    assert whole == made.text
    assert len(tokens) > 15
    assert [token["id"] for token in tokens] == ids_of(made)
    chat.get_by_role("button", name="Tokens").click()
    at = len(tokens) // 2
    branch(chat, at, lambda panel: panel.get_by_role("button", name="Continue from this").first)
    turn = kept(chat)[-1]
    ids = [token["id"] for token in turn["tokens"]]
    assert ids[:at] == [token["id"] for token in tokens[:at]]
    assert ids[at] != tokens[at]["id"]
    made = generated(emulator, asked[0], ids[: at + 1], Weights.upscale(0.1))
    assert turn["text"].endswith(made.text)
    assert ids[at + 1 :] == ids_of(made)
    chat.get_by_role("button", name="Previous version").last.click()
    replay_at = max(1, at - 1)
    branch(chat, replay_at, lambda panel: replay_with(panel, 1.5))
    turn = kept(chat)[-1]
    ids = [token["id"] for token in turn["tokens"]]
    assert ids[:replay_at] == [token["id"] for token in tokens[:replay_at]]
    made = generated(emulator, asked[0], ids[:replay_at], Weights.upscale(1.5))
    assert ids[replay_at:] == ids_of(made)
    assert turn["text"] == whole[: tokens[replay_at]["offset"]] + made.text
    expect(reply(chat)).to_contain_text("α 1.5")


def replay_with(panel, value):
    panel.get_by_label("α of the replay").fill(str(value))
    return panel.get_by_role("button", name="Replay from here")


def branch(page, at, choose):
    """Look at a token of the last reply, and do something from it on."""
    reply(page).get_by_role("option").nth(at).click()
    n_before = page.get_by_role("group", name="Versions").count()
    choose(page.get_by_role("complementary", name="Token")).click()
    expect(reply(page).get_by_role("group", name="Versions")).to_be_visible()
    assert n_before <= 1
    expect(reply(page)).to_contain_text("begins with")
    replied(page)
