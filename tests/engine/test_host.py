"""The child's main loop: what comes as commands, and what goes out as events, in one process."""

import io
import json
import threading

import pytest
from helpers.emulator_tools import solved_alpha

from edge_eft.engine import host
from edge_eft.engine.host import Host
from edge_eft.engine.reply import Step
from edge_eft.files.recipe import from_files
from edge_eft.files.recipe_toml import to_toml

LONG = {"prompt": "the red " * 4_000, "max_tokens": 1}
SHORT = {"prompt": "the red", "max_tokens": 2}


class Driven:
    """A host with one recipe, and the events that it told."""

    def __init__(self, family):
        self.out = io.StringIO()
        self.host = Host(self.out)
        self.toml = to_toml(from_files(*family[:3]), ".")
        self.load("m")
        self.emulator = self.host._emulators["m"]

    def do(self, do, **values):
        self.host.do(json.dumps({"do": do, **values}))

    def load(self, name, **options):
        options = {"n_ctx": 64, "n_threads": 1, **options}
        self.do("load", name=name, toml=self.toml, path="m.toml", options=options)

    def go_on(self):
        """Do the next command that the host gives itself."""
        self.host.do(self.host.commands.get(timeout=10))

    @property
    def events(self):
        return [json.loads(line) for line in self.out.getvalue().splitlines()]

    def of(self, id):
        """The names of the events about a request."""
        told = [event["event"] for event in self.events if event.get("id") == id]
        steps = [one for event in self.events for one in event.get("steps", ())]
        return told + ["step" for one in steps if one["request_id"] == id]


@pytest.fixture
def driven(tiny):
    return Driven(tiny)


@pytest.fixture
def held(driven, monkeypatch):
    """Holds the other thread where a prompt becomes tokens, until it is set."""
    go, plain = threading.Event(), driven.emulator.encode

    def encode(request):
        if threading.current_thread() is not threading.main_thread():
            assert go.wait(10)
        return plain(request)

    monkeypatch.setattr(driven.emulator, "encode", encode)
    yield go
    go.set()


def test_replies_go_on_while_a_long_prompt_becomes_tokens(driven, held):
    driven.do("submit", id="long", name="m", request=LONG)
    driven.do("ask", id="count", name="m", what="prompts", request=LONG)
    driven.do("submit", id="short", name="m", request=SHORT)
    while driven.host.has_work:
        driven.host.step()
    assert driven.of("short") == ["accepted", "step", "step"]
    assert driven.of("long") == driven.of("count") == []
    held.set()
    driven.go_on()
    driven.go_on()
    assert driven.of("long") == driven.of("count") == ["error"]
    assert {event["kind"] for event in driven.events[-2:]} == {"ContextLengthError"}


def test_a_long_prompt_that_fits_is_answered_as_a_short_one(driven, held):
    message = {"role": "user", "content": "the red"}
    held.set()
    for id, filler in (("long", "x" * 20_000), ("short", "x")):
        request = {"prompt": [message], "max_tokens": 3, "seed": 1, "stop": [filler]}
        driven.do("submit", id=id, name="m", request=request)
    driven.go_on()
    while driven.host.has_work:
        driven.host.step()
    steps = [one for event in driven.events for one in event.get("steps", ())]
    tokens = {id: [s["token"] for s in steps if s["request_id"] == id] for id in ("long", "short")}
    assert tokens["long"] == tokens["short"]
    assert len(tokens["long"]) == 3


def test_what_is_cancelled_meanwhile_says_nothing_more(driven, held):
    driven.do("submit", id="long", name="m", request=LONG)
    driven.do("cancel", id="long")
    held.set()
    driven.go_on()
    assert driven.of("long") == []
    assert not driven.host.has_work


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_recipe_is_unloaded_when_nobody_reads_its_vocabulary_any_more(driven, held, is_cancelled):
    driven.do("submit", id="long", name="m", request=LONG)
    if is_cancelled:
        driven.do("cancel", id="long")
    threading.Timer(0.2, held.set).start()
    driven.do("unload", name="m")
    assert held.is_set()
    driven.go_on()
    assert driven.of("long") == ([] if is_cancelled else ["error"])


def test_replies_go_on_while_another_recipe_is_loaded(driven, monkeypatch):
    go, plain = threading.Event(), host.Emulator

    def load(*given, **options):
        assert go.wait(10)
        return plain(*given, **options)

    monkeypatch.setattr(host, "Emulator", load)
    driven.load("n")
    driven.load("bad", n_ctx="x")
    driven.do("submit", id="a", name="m", request=SHORT)
    while driven.host.has_work:
        driven.host.step()
    assert driven.of("a") == ["accepted", "step", "step"]
    go.set()
    driven.go_on()
    driven.go_on()
    assert (driven.events[-2]["event"], driven.events[-2]["name"]) == ("loaded", "n")
    assert (driven.events[-1]["event"], driven.events[-1]["name"]) == ("failed", "bad")
    driven.do("submit", id="b", name="n", request=SHORT)
    assert driven.of("b") == ["accepted"]


def test_texts_and_ids_become_tokens_and_a_prompt_that_cannot_fit_does_not(driven, monkeypatch):
    special = {"add_special": True, "parse_special": False}
    asked = {"id": "a", "name": "m", "what": "tokenize", "parts": ["the", 7], **special}
    driven.do("ask", **asked, with_pieces=False, is_prompt=True)
    driven.do("ask", **asked, with_pieces=True, is_prompt=False)
    ids, rows = (event["answer"] for event in driven.events[-2:])
    model = driven.emulator.contexts[0].model
    assert ids == [*model.tokenize("the", add_special=True), 7] == [id for id, _ in rows]
    assert rows[1][1].encode("latin-1") == model.piece(ids[1], special=True)
    monkeypatch.setattr(model, "tokenize", None)
    parts = ["the " * 40_000, 7]
    driven.do("ask", **{**asked, "parts": parts}, with_pieces=False, is_prompt=True)
    driven.go_on()
    assert driven.events[-1]["kind"] == "ContextLengthError"


# -- how far it is -------------------------------------------------------------------------------


def told_of(driven, event):
    return [one for one in driven.events if one["event"] == event]


@pytest.fixture
def roomy(tiny, monkeypatch):
    """A host whose recipe takes prompts of several chunks, on a CPU."""
    monkeypatch.setattr("edge_eft.engine.prefill.gpu_available", lambda: False)
    driven = Driven(tiny)
    driven.load("roomy", n_ctx=256)
    driven.go_on()
    return driven


def test_a_reading_of_a_prompt_is_told_to_those_who_asked(roomy):
    request = {"prompt": "?" * 200, "max_tokens": 2, "draft": 0, "temperature": 0}
    roomy.do("submit", id="asks", name="roomy", request=request, progress=True)
    roomy.do("submit", id="does not", name="roomy", request={**request, "prompt": "!" * 200})
    while roomy.host.has_work:
        roomy.host.step()
    progress = told_of(roomy, "progress")
    assert {one["id"] for one in progress} == {"asks"}
    told = [one["progress"] for one in progress]
    n = told[0]["total"]
    assert [one["processed"] for one in told] == [0, 64, 128, 192, n]
    assert {one["cache"] for one in told} == {0}
    times = [one["time_ms"] for one in told]
    assert times == sorted(times)
    assert times[-1] > 0
    events = [one["event"] for one in roomy.events]
    assert events[: events.index("steps")].count("progress") == 5  # the last before the token
    assert not roomy.host._readings


def test_a_prompt_that_is_cached_in_part_says_how_much(roomy):
    request = {"prompt": "?" * 100, "max_tokens": 1}
    for id, prompt in (("a", "?" * 100), ("b", "?" * 220)):
        request = {"prompt": prompt, "max_tokens": 1, "draft": 0}
        roomy.do("submit", id=id, name="roomy", request=request, progress=id == "b")
        while roomy.host.has_work:
            roomy.host.step()
    told = [one["progress"] for one in told_of(roomy, "progress")]
    cached = {one["cache"] for one in told}
    assert cached == {told[0]["processed"]}
    assert 90 < cached.pop() <= 101
    assert told[-1]["processed"] == told[-1]["total"] > 220


def test_a_reply_that_is_cancelled_while_its_prompt_is_read_says_no_more(roomy):
    request = {"prompt": "?" * 200, "max_tokens": 2}
    roomy.do("submit", id="a", name="roomy", request=request, progress=True)
    roomy.host.step()
    roomy.do("cancel", id="a")
    assert len(told_of(roomy, "progress")) == 1
    assert not roomy.host._readings


def test_a_loading_is_told_on_whichever_thread_it_is(driven):
    driven.load("n")  # beside the first
    driven.go_on()
    told = {}
    for name in ("m", "n"):
        *loading, loaded = (one for one in driven.events if one.get("name") == name)
        assert loaded["event"] == "loaded"
        assert {one["event"] for one in loading} == {"loading"}
        assert len(loading) < 6
        told[name] = [(one["bytes"], one["total"]) for one in loading]
    total = told["m"][0][1]
    assert total > 0
    assert told["m"][:1] + told["m"][-1:] == [(0, total), (total, total)]
    assert told["n"][0] == (0, total)  # which has the files of the first, and reads none


# -- weights in mid-reply ----------------------------------------------------------------------


@pytest.mark.parametrize("draft", [0, 4, "auto"])
def test_new_weights_act_on_just_the_tokens_from_the_one_that_the_answer_names(agreeing, draft):
    """Also where a block of drafts was told of just now; the α of each token is solved for."""
    driven = Driven(agreeing)
    head = {"prompt": "the red", "prefix_ids": [300, 301], "ignore_eos": True, "seed": 1}
    more = {"explain": 4, "draft": draft, "max_tokens": 50, "weights": {"alpha": 0.1}}
    driven.do("submit", id="r", name="m", request={**head, **more})
    alphas, marks = [0.1], [0]
    for i in range(12):
        for _ in range(i % 3):
            driven.host.step()
        alphas.append(0.2 + 0.15 * i)
        weights = {"alpha": alphas[-1]}
        driven.do("ask", id=f"a{i}", name="m", what="set_weights", request="r", weights=weights)
        marks += [event["answer"] for event in driven.events if event.get("id") == f"a{i}"]
    while driven.host.has_work:
        driven.host.step()
    steps = [Step.from_dict(one) for event in driven.events for one in event.get("steps", ())]
    assert [step.index for step in steps] == list(range(2, 52))
    assert (marks[:2], marks == sorted(marks)) == ([0, 0], True)
    assert any(step.accepted for step in steps) == (draft != 0)
    held = [
        a for a, m, end in zip(alphas, marks, [*marks[1:], 50], strict=True) for _ in range(m, end)
    ]
    assert [solved_alpha(step.candidates) for step in steps] == pytest.approx(held, abs=2e-3)
    weights = {"alpha": 1.0}
    driven.do("ask", id="late", name="m", what="set_weights", request="r", weights=weights)
    assert driven.events[-1] == {"event": "answer", "id": "late", "answer": None}
