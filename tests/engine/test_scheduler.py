"""Several requests at once: each gets the reply it gets alone, whoever waits, ends or fails."""

from unittest.mock import Mock

import numpy as np
import pytest
from helpers.emulator_tools import (
    GREEDY,
    UNDRAFTED,
    alone,
    decoded,
    decoded_since,
    open_emulator,
    run,
    text_of,
    tokens_of,
)

from edge_eft import Emulator, Request, Weights
from edge_eft.errors import EngineError, PromptError, RequestError

pytestmark = pytest.mark.timeout(60)


# -- several requests at once ------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        GREEDY,
        {"temperature": 0.9, "seed": 5},
        {"temperature": 1.2, "seed": 5, "repetition_penalty": 1.3},
    ],
    ids=["greedy", "seeded", "penalised"],
)
def test_three_at_once_give_what_each_gives_alone(family, options, draft):
    requests = [
        Request(prompt, max_tokens=20 + 3 * i, **options, **draft)
        for i, prompt in enumerate(family.prompts)
    ]
    expected = alone(family, requests)
    with open_emulator(family, n_slots=3) as emulator:
        ids = [emulator.submit(request) for request in requests]
        replies = run(emulator)
    for request_id, steps in zip(ids, expected, strict=True):
        assert tokens_of(replies[request_id]) == tokens_of(steps)
        assert text_of(replies[request_id]) == text_of(steps)
        assert replies[request_id][-1].finish_reason == steps[-1].finish_reason
        assert [step.index for step in replies[request_id]] == list(range(len(steps)))


def test_requests_that_come_and_go_give_what_each_gives_alone(tiny, draft):
    """Slots are given back and taken again while others are in mid-reply."""
    rng = np.random.default_rng(1)
    requests = [
        Request(
            " ".join(rng.choice(["the", "red", "one", "of", "it"], int(rng.integers(1, 30)))),
            max_tokens=int(rng.integers(1, 30)),
            temperature=1.0,
            seed=seed,
            weights=Weights.upscale(float(rng.choice([0.0, 0.5, 1.0]))),
            **draft,
        )
        for seed in range(9)
    ]
    expected = alone(tiny, requests)
    replies = {}
    with open_emulator(tiny, n_slots=3) as emulator:
        ids = []
        for request in requests:
            ids.append(emulator.submit(request))
            for _ in range(int(rng.integers(0, 8))):
                for step in emulator.step():
                    replies.setdefault(step.request_id, []).append(step)
        for request_id, steps in run(emulator).items():
            replies.setdefault(request_id, []).extend(steps)
    for request_id, steps in zip(ids, expected, strict=True):
        assert tokens_of(replies[request_id]) == tokens_of(steps)
        assert text_of(replies[request_id]) == text_of(steps)


def test_more_requests_than_slots_wait(tiny):
    requests = [Request("the red", max_tokens=6, seed=seed) for seed in range(5)]
    expected = alone(tiny, requests)
    with open_emulator(tiny, n_slots=2) as emulator:
        ids = [emulator.submit(request) for request in requests]
        assert len(set(ids)) == 5
        first = emulator.step()
        assert {step.request_id for step in first} == set(ids[:2])
        replies = run(emulator)
        for step in reversed(first):
            replies.setdefault(step.request_id, []).insert(0, step)
        assert emulator.step() == []
    for request_id, steps in zip(ids, expected, strict=True):
        assert tokens_of(replies[request_id]) == tokens_of(steps)


def test_step_without_requests_decodes_nothing(tiny):
    with open_emulator(tiny) as emulator:
        assert emulator.step() == []
        assert decoded(emulator) == {"base": 0, "tuned:tuned": 0, "reference:tuned": 0}


def test_a_request_takes_the_slot_that_knows_its_prompt(tiny):
    prompts = ["the red one is", "it is in the test of", "a blue and a green"]
    with open_emulator(tiny, n_slots=3) as emulator:
        for prompt in prompts:
            emulator.submit(Request(prompt, max_tokens=3, **GREEDY, **UNDRAFTED))
        run(emulator)
        before = decoded(emulator)
        emulator.generate(prompts[1], max_tokens=1, **GREEDY)
        assert set(decoded_since(emulator, before).values()) == {1}


# -- ends before the end -----------------------------------------------------------------------


def test_cancel_frees_the_slot(tiny):
    with open_emulator(tiny) as emulator:
        first = emulator.submit(Request("the red", max_tokens=50))
        second = emulator.submit(Request("it is", max_tokens=4, seed=1))
        third = emulator.submit(Request("a", max_tokens=4))
        assert {step.request_id for step in emulator.step()} == {first}
        emulator.cancel(first)
        emulator.cancel(third)  # it has not begun
        emulator.cancel(first)  # nothing happens
        emulator.cancel(12345)
        replies = run(emulator)
    assert set(replies) == {second}
    assert tokens_of(replies[second]) == tokens_of(
        alone(tiny, [Request("it is", max_tokens=4, seed=1)])[0]
    )


def test_a_request_that_fails_takes_nothing_from_the_others(tiny):
    """What another request generated in the same step must not get lost."""
    good = Request("the red", max_tokens=8, seed=1)
    (expected,) = alone(tiny, [good])
    bad = Request("the red", max_tokens=8, logit_bias=dict.fromkeys(range(352), float("-inf")))
    with open_emulator(tiny, n_slots=2) as emulator:
        good_id = emulator.submit(good)
        steps = emulator.step()
        bad_id = emulator.submit(bad)
        steps += emulator.step()
        assert {step.request_id for step in steps} == {good_id}
        with pytest.raises(EngineError, match="no token is left"):
            emulator.step()
        with pytest.raises(RequestError):
            emulator.set_weights(bad_id, Weights())  # it has ended
        steps += run(emulator)[good_id]
    assert tokens_of(steps) == tokens_of(expected)
    assert text_of(steps) == text_of(expected)


def test_a_bias_beyond_the_vocabulary_is_refused_at_once(tiny):
    with open_emulator(tiny) as emulator, pytest.raises(RequestError, match="352"):
        emulator.submit(Request("the", logit_bias={352: 1.0}))


def test_an_interrupt_while_a_slot_is_given_leaves_it_free(tiny, monkeypatch):
    """It was neither free nor taken afterwards, and the next reply waited for it for ever."""
    with open_emulator(tiny, n_slots=2) as emulator:
        expected = emulator.generate("the red", max_tokens=4, seed=1).tokens
        for function in ("kept", "advance", "enter"):
            with monkeypatch.context() as patch:
                patch.setattr(emulator.contexts, function, Mock(side_effect=KeyboardInterrupt))
                patch.setattr(emulator._scheduler, "_kept", Mock(side_effect=KeyboardInterrupt))
                with pytest.raises(KeyboardInterrupt):
                    emulator.generate("the red", max_tokens=4)
                with pytest.raises(KeyboardInterrupt):
                    emulator.score("the red", [300, 301])
        ids = [emulator.submit(Request("the red", max_tokens=4, seed=1)) for _ in range(2)]
        replies = dict(emulator.collect(ids))
        assert [replies[i].tokens for i in ids] == [expected, expected]


def test_a_refused_change_of_weights_changes_nothing(tmp_path, tiny):
    """The second context has no room for its prompt; the first one had been told its own."""
    path = tmp_path / "formats.toml"
    long = "'" + "{{ messages[-1].content }} " * 3 + "'"
    path.write_text(
        f"[base]\nfile = '{tiny.base}'\nprompt = 'plain'\n"
        f"[delta.a]\ntuned = {{ file = '{tiny.tuned}', prompt = 'transcript' }}\n"
        f"reference = {{ file = '{tiny.reference}', prompt = {long} }}\n"
    )
    request = Request(
        [{"role": "user", "content": "the red one is it " * 3}],
        weights=Weights.only("base"),
        max_tokens=30,
        **GREEDY,
    )
    with Emulator.load(path, n_ctx=80, n_threads=1) as emulator:
        expected = emulator.generate(request)
        request_id = emulator.submit(request)
        emulator.step()
        with pytest.raises(PromptError, match="reference:a and 1 of the reply"):
            emulator.set_weights(request_id, Weights.upscale(1.0))
        assert len(run(emulator)[request_id]) + 1 == len(expected.tokens)


def test_messages_that_grow_later_do_not_reach_a_submitted_request(tiny):
    """A model that gets weight in mid-reply is told what the request said when it was made."""
    messages = [{"role": "user", "content": "the red"}]
    request = Request(messages, weights=Weights.only("base"), max_tokens=8, **GREEDY)
    replies = []
    for grows in (False, True):
        with open_emulator(tiny) as emulator:
            request_id = emulator.submit(request)
            steps = emulator.step()
            if grows:
                messages.append({"role": "user", "content": "a blue and a green"})
            emulator.set_weights(request_id, Weights.upscale(1.0))
            replies.append(tokens_of(steps + run(emulator)[request_id]))
    assert replies[0] == replies[1]
