"""A reply's text, taken apart as it comes: content, reasoning, calls of tools.

Nothing is held back but what may become a mark, with the white space before it, and a tool call of
which it is not sure yet that it is one. Nothing is lost: a call that is not one comes back as
content, unchanged, and so do marks in other places than theirs. White space is left out where it
touches a mark. Knows nothing of HTTP and of tokens.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from .call_scanner import CallScanner
from .reply_form import PYTHON_TAG, TOOL_CALL, ReplyForm

_BETWEEN_CALLS = re.compile(r"\s*;?\s*")
_PART = 1024  # characters that are read together: each step copies what is left of them


@dataclass(frozen=True)
class Content:
    """A part of what is said."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """A part of what is thought."""

    text: str


@dataclass(frozen=True)
class ToolCallStart:
    """A call begins; `index` counts those of one reply."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class ToolCallArguments:
    """A part of a call's arguments: JSON text as the model wrote it, which may be wrong."""

    index: int
    text: str


Piece = Content | Reasoning | ToolCallStart | ToolCallArguments


class ReplyParser:
    """Takes one reply apart.

    Args:
        form: of the reply.
        tools: calls are looked for: the request had tools.
        reasoning: thoughts are told apart; else they are content, marks included.
        in_reasoning: the reply begins inside the marks (`form.opens_reasoning`).
    """

    def __init__(
        self, form: ReplyForm, *, tools: bool, reasoning: bool, in_reasoning: bool
    ) -> None:
        self._marks = form.reasoning
        self._calls = form.tool_calls if tools else None
        self._splits = reasoning
        self._in_reasoning = in_reasoning
        self._rest = ""  # not handed out yet
        self._pieces: list[Piece] = []
        self._n_calls = 0
        self._scanner = CallScanner(needs_arguments=False)
        self._head = ""  # what stood before the call's object
        self._is_out = False  # the call's start
        self._step: Callable[[bool], bool] = self._begin if self._marks else self._begin_content

    def push(self, text: str) -> list[Piece]:
        """Return what is certain now that `text` came."""
        pieces = []
        for at in range(0, len(text), _PART):
            self._rest += text[at : at + _PART]
            pieces += self._run(final=False)
        return pieces

    def flush(self) -> list[Piece]:
        """Return what was held back: the reply has ended."""
        return self._run(final=True)

    def _run(self, *, final: bool) -> list[Piece]:
        while self._step(final):
            pass
        pieces, self._pieces = self._pieces, []
        return pieces

    # --- the steps: each takes from the rest, and returns whether another can go on ---------

    def _begin(self, final: bool) -> bool:
        assert self._marks
        mark = self._marks[0]
        core = self._rest.lstrip()
        if core.startswith(mark):
            self._drop(len(self._rest) - len(core) + len(mark))
            self._step = self._begin_reasoning
        elif not final and mark.startswith(core):
            return False
        else:
            self._step = self._begin_reasoning if self._in_reasoning else self._begin_content
        return True

    def _begin_reasoning(self, final: bool) -> bool:
        return self._after_space(self._reason)

    def _reason(self, final: bool) -> bool:
        assert self._marks
        mark = self._marks[1]
        at = self._rest.find(mark)
        if at < 0:
            self._put(self._free(mark, final), thought=True)
            return False
        self._put(len(self._rest[:at].rstrip()), thought=True)
        self._drop(self._rest.index(mark) + len(mark))
        self._step = self._end_reasoning
        return True

    def _end_reasoning(self, final: bool) -> bool:
        return self._after_space(self._begin_content)

    def _begin_content(self, final: bool) -> bool:
        if self._calls == "hermes":
            self._step = self._talk
        elif self._calls == "llama3":
            return self._begin_object(final)
        else:
            self._step = self._talk_on
        return True

    def _talk_on(self, final: bool) -> bool:
        """Content without calls."""
        self._put(len(self._rest))
        return False

    def _talk(self, final: bool) -> bool:
        mark = TOOL_CALL[0]
        at = self._rest.find(mark)
        if at < 0:
            self._put(self._free(mark, final))
            return False
        self._put(len(self._rest[:at].rstrip()))
        self._begin_call(self._rest.index(mark) + len(mark))
        return True

    def _begin_object(self, final: bool) -> bool:
        """Llama's call is the whole reply."""
        return self._object_at(len(self._rest) - len(self._rest.lstrip()), final)

    def _object_at(self, n: int, final: bool) -> bool:
        """Begin one of Llama's calls behind `n` characters, or content if there is none."""
        core = self._rest[n:]
        if core.startswith(PYTHON_TAG):
            self._begin_call(n + len(PYTHON_TAG))
        elif core.startswith("{"):
            self._begin_call(n)
        elif not final and PYTHON_TAG.startswith(core):
            return False
        else:
            self._step = self._talk_on
        return True

    def _begin_call(self, n: int) -> None:
        self._head, self._rest = self._rest[:n], self._rest[n:]
        self._scanner = CallScanner(needs_arguments=self._calls == "llama3")
        self._is_out = False
        self._step = self._call

    def _call(self, final: bool) -> bool:
        scanner = self._scanner
        self._rest = scanner.feed(self._rest)
        if scanner.failed or (final and not scanner.begun):
            seen = self._head + scanner.text
            self._rest = seen + self._rest
            self._put(len(seen))
            self._step = self._talk if self._calls == "hermes" else self._talk_on
            return True
        if scanner.begun and not self._is_out:
            self._is_out = True
            id_ = f"call_{secrets.token_hex(12)}"
            self._pieces.append(ToolCallStart(self._n_calls, id_, scanner.name or ""))
        if text := scanner.take():
            self._pieces.append(ToolCallArguments(self._n_calls, text))
        if scanner.ended:
            self._n_calls += 1
            self._step = self._end_call if self._calls == "hermes" else self._next_object
        return scanner.ended

    def _end_call(self, final: bool) -> bool:
        mark = TOOL_CALL[1]
        core = self._rest.lstrip()
        if not final and mark.startswith(core) and core != mark:
            return False
        self._rest = core.removeprefix(mark)
        self._step = self._after_call
        return True

    def _after_call(self, final: bool) -> bool:
        self._rest = self._rest.lstrip()
        if self._rest:
            self._step = self._talk
        return bool(self._rest)

    def _next_object(self, final: bool) -> bool:
        """Behind one of Llama's calls: another, or content."""
        between = _BETWEEN_CALLS.match(self._rest)
        can_go_on = self._object_at(between.end() if between else 0, final)
        if self._step == self._talk_on:
            self._rest = self._rest.lstrip()
        return can_go_on

    # --- taking from the rest ---------------------------------------------------------------

    def _free(self, mark: str, final: bool) -> int:
        """How much of the rest cannot belong to a mark that is still to come."""
        if final:
            return len(self._rest)
        most = min(len(mark) - 1, len(self._rest))
        held = next((n for n in range(most, 0, -1) if self._rest.endswith(mark[:n])), 0)
        return len(self._rest[: len(self._rest) - held].rstrip())

    def _put(self, n: int, *, thought: bool = False) -> None:
        """Hand out the first `n` characters."""
        text, self._rest = self._rest[:n], self._rest[n:]
        if not text:
            return
        kind = Reasoning if thought and self._splits else Content
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, kind):
            text = last.text + text
            self._pieces.pop()
        self._pieces.append(kind(text))

    def _drop(self, n: int) -> None:
        """Leave out the first `n` characters, unless thoughts are content."""
        if self._splits:
            self._rest = self._rest[n:]
        else:
            self._put(n)

    def _after_space(self, step: Callable[[bool], bool]) -> bool:
        """Leave out white space, and go on with `step` where something else stands."""
        self._drop(len(self._rest) - len(self._rest.lstrip()))
        if self._rest:
            self._step = step
        return bool(self._rest)
