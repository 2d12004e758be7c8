"""Weights that change in mid-reply, streams that end early, streams beside others."""

import pytest
from helpers.emulator_tools import (
    GREEDY,
    alone,
    open_emulator,
    reference_reply,
    run,
    text_of,
    tokens_of,
)

from edge_eft import Request, Weights
from edge_eft.errors import EdgeEftError, RequestError

pytestmark = pytest.mark.timeout(60)


# -- weights in mid-reply ----------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_set_weights_acts_from_the_next_token(family, first, second, draft):
    """The reference is a float64 sum over bare models. With α = 0 roles must catch up."""
    prompt, n = family.prompts[0], 16
    draft = {"draft": min(draft["draft"], 1)}  # four would hold a whole reply of atlas
    request = Request(prompt, weights=Weights.upscale(first), max_tokens=n, **GREEDY, **draft)
    with open_emulator(family, n_slots=2) as emulator:
        other = emulator.submit(Request(family.prompts[1], max_tokens=n, **GREEDY, **draft))
        request_id = emulator.submit(request)
        steps = []
        while len(steps) < (1 if draft["draft"] else 4):
            new = [step for step in emulator.step() if step.request_id == request_id]
            assert new[-1].finish_reason is None, "the reply is too short for this test"
            steps += new
        emulator.set_weights(request_id, Weights.upscale(second))
        k = len(steps)
        replies = run(emulator)
        steps += replies[request_id]
    assert tokens_of(steps) == reference_reply(
        family, prompt, [Weights.upscale(first)] * k + [Weights.upscale(second)] * (n - k)
    )
    assert other in replies


@pytest.mark.parametrize("when", range(1, 8))
def test_set_weights_while_streaming_acts_from_the_next_token(agreeing, draft, when):
    """A reader of `stream` has seen one token; what was accepted behind it is dropped."""
    prompt, n = agreeing.prompts[0], 16
    first, second = Weights.upscale(0.1), Weights.only("reference")
    accepted, tokens = [], []
    with open_emulator(agreeing) as emulator:
        options = {"weights": first, "max_tokens": n} | GREEDY | draft
        for step in emulator.stream(prompt, **options):
            tokens.append(step.token)
            accepted.append(step.accepted)
            if step.index == when:
                emulator.set_weights(step.request_id, second)
    assert any(accepted) == bool(draft["draft"])
    before = when + 1
    assert tokens == reference_reply(agreeing, prompt, [first] * before + [second] * (n - before))


def test_set_weights_of_a_waiting_request_acts_from_its_first_token(tiny):
    with open_emulator(tiny) as emulator:
        first = emulator.submit(Request("the", max_tokens=2))
        second = emulator.submit(Request("the red one", max_tokens=8, **GREEDY))
        emulator.set_weights(second, Weights.upscale(0.0))
        replies = run(emulator)
    assert len(replies[first]) == 2
    assert tokens_of(replies[second]) == reference_reply(
        tiny, "the red one", [Weights.upscale(0.0)] * 8
    )


def test_set_weights_refuses_unknown_requests_and_impossible_weights(tiny):
    with open_emulator(tiny) as emulator:
        with pytest.raises(RequestError, match="no request 7"):
            emulator.set_weights(7, Weights.upscale(1.0))
        request_id = emulator.submit(Request("the", max_tokens=8, **GREEDY))
        emulator.step()
        with pytest.raises(RequestError, match="'nobody'"):
            emulator.set_weights(request_id, Weights.interpolate({"nobody": 1.0}))
        with pytest.raises(RequestError, match=r"0\.5"):
            emulator.set_weights(request_id, 0.5)
        conservative = emulator.submit(Request("the", max_tokens=4, conservative=0.9))
        with pytest.raises(RequestError, match="conservative"):
            emulator.set_weights(conservative, Weights.upscale(0.5))
        replies = run(emulator)
        assert len(replies[conservative]) == 4
        with pytest.raises(RequestError, match="no request"):
            emulator.set_weights(request_id, Weights.upscale(1.0))


# -- streams -----------------------------------------------------------------------------------


def test_closing_a_stream_cancels_it(family):
    prompt = family.prompts[0]
    request = Request(prompt, max_tokens=20, **GREEDY)
    (expected,) = alone(family, [request])
    with open_emulator(family) as emulator:
        stream = emulator.stream(request)
        next(stream)
        stream.close()
        assert emulator.step() == []
        assert list(stream) == []
        generation = emulator.generate(request)
    assert generation.text == text_of(expected)


@pytest.mark.timeout(10)
def test_a_stream_whose_request_is_cancelled_ends(tiny):
    """It used to wait for steps for ever."""
    with open_emulator(tiny) as emulator:
        indices = []
        for step in emulator.stream("the red", max_tokens=20):
            indices.append(step.index)
            if step.index == 3:
                emulator.cancel(step.request_id)
        assert indices[-1] in (3, 4)
        assert emulator.generate("the red", max_tokens=3).finish_reason == "length"


@pytest.mark.timeout(10)
def test_a_stream_of_a_closed_emulator_ends(tiny):
    emulator = open_emulator(tiny)
    stream = emulator.stream("the red", max_tokens=20)
    next(stream)
    emulator.close()
    with pytest.raises((EdgeEftError, StopIteration)):
        next(stream)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("n_slots", [1, 2])
def test_two_streams_side_by_side_each_give_their_own_reply(tiny, n_slots, draft):
    """Each must give its own reply, whoever asks for the next step."""
    requests = [Request("the red", max_tokens=9, seed=s, **draft) for s in range(2)]
    expected = alone(tiny, requests)
    with open_emulator(tiny, n_slots=n_slots) as emulator:
        streams = [emulator.stream(request) for request in requests]
        steps = [[], []]
        for _ in range(9):
            for mine, stream in zip(steps, streams, strict=True):
                mine += [step for step in [next(stream, None)] if step]
    assert [tokens_of(mine) for mine in steps] == [tokens_of(theirs) for theirs in expected]


def test_generate_loses_no_step_of_a_submitted_request(tiny):
    """Steps of the other request are not lost."""
    requests = [Request("the red", max_tokens=9, seed=s) for s in range(2)]
    expected = alone(tiny, requests)
    with open_emulator(tiny, n_slots=2) as emulator:
        request_id = emulator.submit(requests[0])
        begun = emulator.step()
        assert emulator.generate(requests[1]).text == text_of(expected[1])
        begun += run(emulator).get(request_id, [])
    assert tokens_of(begun) == tokens_of(expected[0])


# -- how far loading is ------------------------------------------------------------------------


def test_loading_tells_the_bytes_of_every_file_once(agreeing):
    """The base's file is the tuned one, too: it is read once, and its bytes are counted once."""
    told = []
    with open_emulator(agreeing, on_load=lambda *how_far: told.append(how_far)):
        pass
    sizes = {path: path.stat().st_size for path in (agreeing.base, agreeing.reference)}
    total = sum(sizes.values())
    assert list(dict.fromkeys(file for file, _, _ in told)) == list(sizes)
    assert {all_bytes for _, _, all_bytes in told} == {total}
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)
    assert sizes[agreeing.base] in done
    assert len(set(done)) > 4, "also while a file is read"


def test_what_a_listener_raises_ends_the_loading(tiny):
    def listen(file, done, total):
        raise RequestError("enough")

    with pytest.raises(RequestError, match="enough"):
        open_emulator(tiny, on_load=listen)
