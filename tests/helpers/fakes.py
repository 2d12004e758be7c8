"""Emulators that say what a test wrote down: no model, no context."""

import signal
import threading
from types import SimpleNamespace

from edge_eft.engine.reply import ReplyBuilder, Step, Timings
from edge_eft.errors import AbortedError, EngineError, PromptError

END = 0


class ScriptedEmulator:
    """Gives scripted replies, word by word, and keeps the requests."""

    deltas = {"chat": 1.0, "brief": 0.0}  # noqa: RUF012
    recipe = SimpleNamespace(name="scripted")
    prefill = SimpleNamespace(on_progress=None)
    record = SimpleNamespace(n_ctx=512, memory=SimpleNamespace(total=3 << 20))

    def __init__(self, *replies, press_at=None, presses=1, fail_at=None):
        self.replies, self.requests = list(replies), []
        self.press_at, self.presses, self.fail_at = press_at, presses, fail_at
        self.interrupted = threading.Event()

    def stream(self, request):
        if any("too long" in str(turn) for turn in request.prompt):
            raise PromptError("the prompt is 600 tokens for base, and 511 fit")
        self.requests.append(request)
        words = self.replies.pop(0).split(" ")
        texts = [words[0], *(f" {word}" for word in words[1:])]
        for i, text in enumerate([*texts, ""]):
            if i == self.press_at:
                for _ in range(self.presses):
                    signal.raise_signal(signal.SIGINT)
                assert self.interrupted.wait(5)
                raise AbortedError("generation was cancelled")
            if i == self.fail_at:
                raise EngineError("base gave NaN")
            last = i == len(texts)
            timings = Timings(decode={"tuned:chat": 0.1, "base": 0.3}, total=0.5)
            yield Step(
                1,
                i,
                END if last else 5,
                text,
                -1.0,
                timings,
                "stop" if last else None,
                is_end_token=last,
                with_prompt=i == 0,
                prompt_tokens=5,
            )

    def interrupt(self):
        self.interrupted.set()

    def resume(self):
        self.interrupted.clear()


class BatchEmulator(ScriptedEmulator):
    """With slots: the request that was submitted last is done first."""

    def load(self, recipe, *, n_slots=1, **options):
        self.recipe, self.options = recipe, {"n_slots": n_slots, **options}
        self.submitted = []
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, request):
        if "too long" in str(request.prompt):
            raise PromptError("the prompt is 600 tokens for base, and 511 fit")
        self.submitted.append(request)
        return len(self.submitted)

    def generate(self, request):
        reply = ReplyBuilder(request)
        for step in self.stream(request):
            reply.take(step)
        return reply.generation()

    def collect(self, request_ids):
        replies = [(n, self.generate(self.submitted[n - 1])) for n in request_ids]
        yield from reversed(replies)
