"""Whenever a reply is interrupted, the next one is what a new emulator gives."""

import linecache
import sys
import threading
import time

import llama_cpp
import pytest
from helpers.emulator_tools import GREEDY, alone, open_emulator, run, text_of, tokens_of

import edge_eft.engine.verifier
import edge_eft.logits.combiner
import edge_eft.text.detokenizer
from edge_eft import Request, Weights
from edge_eft.errors import AbortedError, EngineError

pytestmark = pytest.mark.timeout(60)


THREADS = pytest.mark.parametrize("n_threads", [1, 2])
# Where the second thread can be caught, once early and once late: two of them take five times as
# long as one on models of this size.
MOMENTS = [*((nth, 1) for nth in range(1, 14, 2)), (3, 2), (9, 2)]


def test_interrupt_from_another_thread_stops_a_reply_until_resumed(smollm2_trio):
    with open_emulator(smollm2_trio, n_ctx=1024) as emulator:
        threading.Timer(0.5, emulator.interrupt).start()
        begun = time.perf_counter()
        with pytest.raises(AbortedError):
            emulator.generate("one two three " * 250, max_tokens=2, weights=Weights.only("base"))
        assert time.perf_counter() - begun < 5
        emulator.resume()
        assert emulator.step() == []
        assert emulator.generate("One two", max_tokens=2, **GREEDY).finish_reason == "length"


@THREADS
def test_interrupted_steps_go_on_where_they_were(tiny, draft, n_threads):
    request = Request("the red", max_tokens=12, seed=1, **draft)
    (expected,) = alone(tiny, [request])
    with open_emulator(tiny, n_threads=n_threads) as emulator:
        emulator.submit(request)
        steps = emulator.step()
        for _ in range(3):
            emulator.interrupt()
            with pytest.raises(AbortedError):
                emulator.step()
            emulator.resume()
            steps += emulator.step()
        for more in run(emulator).values():
            steps += more
    assert tokens_of(steps) == tokens_of(expected)


@pytest.mark.parametrize(("nth", "n_threads"), MOMENTS)
@pytest.mark.parametrize(
    "function", ["llama_decode", "llama_get_logits_ith", "llama_memory_seq_rm"]
)
def test_after_ctrl_c_in_a_native_call_the_next_reply_is_right(
    tiny, monkeypatch, function, nth, draft, n_threads
):
    """Whenever it comes, the next reply is what a new emulator gives."""
    request = Request("it is the red one", max_tokens=6, seed=2, **draft)
    (expected,) = alone(tiny, [request])
    with open_emulator(tiny, n_threads=n_threads) as emulator:
        emulator.generate("the red one is it", max_tokens=6, seed=9, **draft)
        calls, real = 0, getattr(llama_cpp, function)

        def interrupted(*args):
            nonlocal calls
            result = real(*args)
            calls += 1
            if calls == nth:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(llama_cpp, function, interrupted)
        try:
            emulator.generate("the red one or", max_tokens=8, seed=4, **draft)
        except KeyboardInterrupt:
            assert calls == nth
        monkeypatch.undo()
        assert emulator.step() == []
        for _ in range(2):
            assert emulator.generate(request).text == text_of(expected)


@pytest.mark.parametrize("target", ["combiner", "sampler", "text"])
@pytest.mark.parametrize("nth", [1, 4])
def test_after_ctrl_c_in_python_code_the_next_reply_is_right(tiny, monkeypatch, target, nth):
    owner, name = {
        "combiner": (edge_eft.logits.combiner.Combiner, "combine"),
        "sampler": (edge_eft.engine.verifier, "choose"),
        "text": (edge_eft.text.detokenizer.TextStream, "push"),
    }[target]
    request = Request("it is the red one", max_tokens=6, seed=2)
    (expected,) = alone(tiny, [request])
    real, calls = getattr(owner, name), 0

    def interrupted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == nth:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with open_emulator(tiny, n_slots=2) as emulator:
        monkeypatch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            emulator.generate("the red one or", max_tokens=8, seed=4)
        assert emulator.step() == []
        # And for a caller of `step` who goes on.
        calls = 0
        request_id = emulator.submit(request)
        steps = []
        try:
            while not steps or not steps[-1].finish_reason:
                steps += emulator.step()
        except KeyboardInterrupt:
            emulator.cancel(request_id)
        monkeypatch.undo()
        assert emulator.generate(request).text == text_of(expected)


@THREADS
def test_a_decode_that_fails_once_leaves_the_next_reply_right(tiny, monkeypatch, n_threads):
    request = Request("it is the red one", max_tokens=6, seed=2)
    (expected,) = alone(tiny, [request])
    with open_emulator(tiny, n_threads=n_threads) as emulator:
        real = llama_cpp.llama_decode
        for nth in range(1, 8):
            calls = 0

            def failing(*args, nth=nth):
                nonlocal calls
                calls += 1
                return -3 if calls == nth else real(*args)

            monkeypatch.setattr(llama_cpp, "llama_decode", failing)
            with pytest.raises(EngineError, match="returned -3"):
                emulator.generate("the red " * nth, max_tokens=6)
            monkeypatch.undo()
        assert emulator.generate(request).text == text_of(expected)


# -- a caller of `step` who goes on ------------------------------------------------------------

RUNNING = (
    Request("the red", max_tokens=7, weights=Weights.upscale(0.1), draft=3, temperature=0.0),
    Request("it is", max_tokens=4, seed=2, stop=["~~", "the~"], frequency_penalty=0.3, draft=0),
)


def interrupted_at(nth, call):
    """What `call` returns, and whether there was a KeyboardInterrupt before the nth line of ours.

    The line that returns what is given out is left alone: nothing looks at signals between it and
    the store before it.
    """
    left = nth

    def trace(frame, event, _):
        nonlocal left
        if "edge_eft" not in frame.f_code.co_filename:
            return None
        if event == "line" and not returns_steps(frame):
            left -= 1
            if not left:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return call(), False
    except KeyboardInterrupt:
        return [], True
    finally:
        sys.settrace(before)


def returns_steps(frame):
    return frame.f_code.co_name == "give_out_all" and "return" in linecache.getline(
        frame.f_code.co_filename, frame.f_lineno
    )


def replies_in_spite_of(emulator, nth, which):
    """Replies of RUNNING where the step `which` was interrupted; whether it was."""
    ids = [emulator.submit(request) for request in RUNNING]
    steps = [step for _ in range(which) for step in emulator.step()]
    more, interrupted = interrupted_at(nth, emulator.step)
    replies = {i: [step for step in steps + more if step.request_id == i] for i in ids}
    for i, more in run(emulator).items():
        replies[i] += more
    return [
        [(step.index, step.token, step.text, step.finish_reason) for step in replies[i]]
        for i in ids
    ], interrupted


@pytest.mark.parametrize("stride", [37, pytest.param(5, marks=pytest.mark.slow)])
def test_ctrl_c_at_any_line_of_a_step_loses_no_token_of_who_goes_on(agreeing, stride):
    """Tokens that were chosen, and of which no step told yet, were missing in the reply."""
    with open_emulator(agreeing, n_slots=2) as emulator:
        expected, _ = replies_in_spite_of(emulator, sys.maxsize, 0)
        for which in range(3):
            nth, interrupted = 1, True
            while interrupted:
                replies, interrupted = replies_in_spite_of(emulator, nth, which)
                assert replies == expected, f"before line {nth} of step {which}"
                nth += stride
            assert nth > 300
