"""A conversation rendered with stand-ins: what is the scaffold's, and what came through.

**Control tokens come from the format's scaffold only.** Messages and definitions of tools are
rendered with stand-ins, which are characters that occur nowhere else, for the characters of their
texts that control tokens are made of. A control token's text in the result is then the scaffold's
own, however texts are nested, joined or cut apart. The result is split there, the stand-ins are
turned back, and the pieces are tokenised with special parsing off (`tokenizer.py`).

A template may look into contents (to cut a `<think>` block, say) and so render them otherwise than
without stand-ins. In that case it is rendered again with only the spelled-out control texts hidden.
That rendering is used if it has the same control tokens in the same order as the fully hidden one;
otherwise the fully hidden one is.

**Replies come back as they were generated.** Tokenising a reply's text may give other ids than its
generation did, and its KV cache would be lost. So an unchanged reply is rendered as one stand-in
and its ids are put there.

**Nothing is lost without a word.** More stand-ins mark where the system messages, the last user
message and a tool's answer at the end begin and end; one that does not come out was left out by the
template. Another marks the end of a last assistant message: such a message is continued, so the
prompt ends there.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import PromptError
from .messages import Message, change_texts, changed, joined, texts, translated
from .tokenizer import Reply, SafeTokenizer
from .tools import Tool, changed_tools

_STAND_INS = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))  # private use, planes 15 and 16
_WORD = re.compile(r"[\w .-]*")


class Drawing(NamedTuple):
    """A rendering with stand-ins.

    Attributes:
        text: what to tokenise; a continued message's end is the text's.
        show: stand-in → what it stands for.
        spliced: stand-in → the reply that it stands for.
        lacks: "user", "tool" or "system" if such a text is not in it.
    """

    text: str
    show: dict[int, str]
    spliced: dict[str, Reply]
    lacks: str = ""


class _Marks(NamedTuple):
    """Stand-ins for nothing: around texts that must come out, and at the end of a continued one."""

    around: dict[int, tuple[str, str]]  # number of a message → before and after its text
    end: str

    def put(self, i: int, text: str) -> str:
        before, core, after = _outer_space(text)
        first, last = self.around[i] if i in self.around and core else ("", "")
        return before + first + core + last + after

    def lost(self, text: str, messages: Sequence[Message]) -> str:
        """Return the role of a marked message of which nothing is in `text`, "" if there is none.

        A template may cut a text at one end.
        """
        for i, marks in reversed(self.around.items()):
            if joined(messages[i]["content"]).strip() and not any(mark in text for mark in marks):
                role = messages[i]["role"]
                return role if role in ("user", "tool") else "system"
        return ""


class Drawer:
    """Renders one conversation with stand-ins, in whatever way it is handed over.

    Attributes:
        continued: the last message is the assistant's: the prompt ends where it does.
        kwargs: the template's variables. What may be part of a control token is hidden in them,
            but for words, which templates compare.
    """

    def __init__(
        self,
        spec: str,
        source: str,
        tokens: SafeTokenizer,
        messages: list[Message],
        kept: Mapping[int, tuple[int, ...]],
        kwargs: Mapping[str, Any],
        tools: Sequence[Tool] = (),
    ) -> None:
        self._spec = spec
        self._tokens = tokens
        self._messages = messages
        last = messages[-1]
        self.continued = last["role"] == "assistant"
        if self.continued and "tool_calls" in last:
            raise PromptError(
                "the last message is the assistant's and calls tools, so it cannot be continued; "
                "add what the tools answered"
            )
        in_use = set(source)
        for text in texts([*messages, dict(kwargs), *tools]):
            in_use.update(text)
        self._stand_ins = _stand_ins(in_use)
        self._hide = {ord(c): next(self._stand_ins) for c in self._tokens.alphabet if c in in_use}
        self._show = {ord(stand_in): chr(c) for c, stand_in in self._hide.items()}
        self._marks = self._make_marks()
        self._spliced: dict[str, Reply] = {}
        self._blind = [self._blinded(i, kept.get(i)) for i in range(len(messages))]
        seeing = [
            changed(m, lambda text: self._tokens.hide_controls(text, self._hide)) for m in messages
        ]
        self._seeing = [*seeing[:-1], self._open_ended(seeing[-1])]
        self._blind_tools = changed_tools(tools, lambda text: translated(text, self._hide))
        self._seeing_tools = changed_tools(
            tools, lambda text: self._tokens.hide_controls(text, self._hide)
        )
        self.kwargs = {
            name: change_texts(
                value, lambda text: text if _WORD.fullmatch(text) else text.translate(self._hide)
            )
            for name, value in kwargs.items()
        }

    def _make_marks(self) -> _Marks:
        roles = [message["role"] for message in self._messages]
        marked = []
        if "user" in roles:
            marked = [i for i, role in enumerate(roles) if role in ("system", "developer")]
            marked.append(len(roles) - 1 - roles[::-1].index("user"))
        if roles[-1] == "tool":
            marked.append(len(roles) - 1)
        around = {i: (next(self._stand_ins), next(self._stand_ins)) for i in marked}
        end = next(self._stand_ins)
        self._show |= {ord(mark): "" for mark in (end, *sum(around.values(), ()))}
        return _Marks(around, end)

    def _blinded(self, i: int, ids: tuple[int, ...] | None) -> Message:
        """A message with all that control tokens are made of hidden, marked or as one stand-in."""
        message = changed(self._messages[i], lambda text: translated(text, self._hide))
        if ids is not None:
            before, core, after = _outer_space(self._messages[i]["content"])
            stand_in = next(self._stand_ins)
            self._show[ord(stand_in)] = core
            self._spliced[stand_in] = Reply(before, after, ids)
            message["content"] = before + stand_in + after
        elif isinstance(message["content"], str):
            message["content"] = self._marks.put(i, message["content"])
        elif message["content"]:
            parts = message["content"]
            parts[-1] = {**parts[-1], "text": self._marks.put(i, parts[-1]["text"])}
        return self._open_ended(message) if i == len(self._messages) - 1 else message

    def _open_ended(self, message: Message) -> Message:
        """A continued message with its end marked; the space tells whether a template strips it."""
        if not self.continued:
            return message
        return {**message, "content": message["content"] + self._marks.end + " "}

    def draw(self, to_text: Callable[[list[Message], list[Tool]], str]) -> Drawing:
        """Return what `to_text` makes of the messages and the definitions of tools.

        Raises:
            PromptError: it fails, or a continued message does not come out whole.
        """
        text = to_text(self._blind, self._blind_tools)
        lacks = self._marks.lost(text, self._messages)
        if lacks == "user":
            return Drawing(text, self._show, self._spliced, lacks)
        text = self._cut(text)
        if self._blind != self._seeing or self._blind_tools != self._seeing_tools:
            seen = self._cut(to_text(self._seeing, self._seeing_tools))
            if translated(seen, self._show) != translated(text, self._show):
                controls = [span.ids for span in self._tokens.controls(text)]
                if controls == [span.ids for span in self._tokens.controls(seen)]:
                    return self._whole(Drawing(seen, self._show, {}, lacks))
        return self._whole(Drawing(text, self._show, self._spliced, lacks))

    def _cut(self, text: str) -> str:
        """A rendering up to the end of a continued message."""
        if not self.continued:
            return text
        at = text.rfind(self._marks.end)
        if at < 0:
            raise self._not_whole()
        return text[:at] if text[at + 1 : at + 2] == " " else text[:at].rstrip()

    def _whole(self, drawing: Drawing) -> Drawing:
        if self.continued:
            core = self._messages[-1]["content"].strip()
            if not translated(drawing.text, self._show).rstrip().endswith(core):
                raise self._not_whole()
        return drawing

    def _not_whole(self) -> PromptError:
        return PromptError(
            f"prompt = {self._spec[:40]!r} does not show the assistant's last message whole, so it "
            f"cannot be continued; end with a user message, or set another format"
        )


def _outer_space(text: str) -> tuple[str, str, str]:
    core = text.strip()
    start = text.index(core)
    return text[:start], core, text[start + len(core) :]


def _stand_ins(in_use: set[str]) -> Iterator[str]:
    """Characters that are not in use, from a place that nobody can guess."""
    n = len(_STAND_INS[0])
    start = secrets.randbelow(2 * n)
    for i in range(start, start + 2 * n):
        stand_in = chr(_STAND_INS[i // n % 2][i % n])
        if stand_in not in in_use:
            yield stand_in
    raise PromptError("the messages use up all private-use characters of Unicode; leave some out")
