"""Messages → token ids for one role; content can never become a control token.

Every role has its own prompt format: the model's own chat template, a built-in one, or inline
Jinja. This module renders messages with it (in bounds: `sandbox.py`) and tokenises the result. It
knows nothing of roles, contexts or logits.

**Control tokens come from the format's scaffold only.** Messages are rendered with stand-ins, which
are characters that occur nowhere else, for the characters of their contents that control tokens are
made of. A control token's text in the result is then the scaffold's own, however contents are
nested, joined or cut apart. The result is split there, the stand-ins are turned back, and the
pieces are tokenised with special parsing off (`tokenizer.py`).

A template may look into contents (to cut a `<think>` block, say) and so render them otherwise than
without stand-ins. In that case it is rendered again with only the spelled-out control texts hidden.
That rendering is used if it has the same control tokens in the same order as the fully hidden one;
otherwise the fully hidden one is.

**Replies come back as they were generated.** Tokenising a reply's text may give other ids than its
generation did, and its KV cache would be lost. So an unchanged reply is rendered as one stand-in
and its ids are put there.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import PromptError
from .formats import check_format
from .sandbox import ChatTemplate
from .tokenizer import Reply, SafeTokenizer, TokenizerSource

ROLES = ("system", "user", "assistant", "tool")

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)

_STAND_INS = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))  # private use, planes 15 and 16

REMEMBERED_REPLIES = 256

Message = dict[str, str]


class ReplyCache(OrderedDict[str, tuple[int, ...]]):
    """The token ids of the newest replies, by their text.

    A prompt that quotes a reply gets these ids, so that its KV is still good: tokenising the text
    again may give other ids.
    """

    def remember(self, text: str, tokens: Sequence[int], piece: Callable[[int], bytes]) -> None:
        """Keep a reply, unless its text is not what its tokens say (a stop string cut it)."""
        if tokens and b"".join(map(piece, tokens)) == text.encode():
            self[text] = tuple(tokens)
            self.move_to_end(text)
            if len(self) > REMEMBERED_REPLIES:
                self.popitem(last=False)


class PromptFormat:
    """How one role is told the messages.

    Args:
        spec: `template` (the model's own chat template), `chatml`, `plain` (the last user
            message's content alone), `transcript` (the turns as "User: …" and "Assistant: …"
            lines, ending "Assistant:"), or a Jinja template, which contains `{{` or `{%`.
            A system message is left out by `plain` and `transcript`: it reaches the emulation
            through the tuned model, whose delta carries it.
        model: whose tokens they become.

    Attributes:
        template_hash: sha256 of the Jinja source, hex; None for the formats that are not Jinja.

    Raises:
        PromptError: no such format, or the model has no template, or it is not Jinja.
    """

    def __init__(self, spec: str, model: TokenizerSource) -> None:
        self.spec = check_format(spec)
        self.template_hash: str | None = None
        self._tokens = SafeTokenizer(model)
        self._source = ""
        self._to_text: Callable[[list[Message]], str]
        if spec == "plain":
            self._to_text = _plain
        elif spec == "transcript":
            self._to_text = _transcript
        else:
            self._source = _jinja_source(spec, model)
            self.template_hash = hashlib.sha256(self._source.encode()).hexdigest()
            template = ChatTemplate(self._source, model.name)
            variables: dict[str, Any] = {
                "bos_token": self._tokens.text(model.bos_token),
                "eos_token": self._tokens.text(model.eos_token),
                "add_generation_prompt": True,
                "tools": None,
                "documents": None,
            }
            self._to_text = lambda messages: template.render(messages, **variables)

    def encode(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        replies: Mapping[str, Sequence[int]] | None = None,
    ) -> list[int]:
        """Return the prompt as token ids, BOS included if the model wants one.

        Args:
            messages: {"role": …, "content": …}; content is a string or a list of text parts.
            replies: text → ids of replies that were generated; an assistant message with such a
                text (apart from outer white space) is given back as these ids, where the format
                shows it whole.

        Raises:
            PromptError: a message is not one, the template fails on them, or no token comes out.
        """
        checked = check_messages(messages)
        kept = self._recall(checked, replies or {})
        text, show, spliced = self._render(checked, kept)
        ids = self._tokens.assemble(text, show, spliced)
        if ids is None:
            # The model's tokenizer cannot continue in mid-text: without the splices, then.
            text, show, _ = self._render(checked, {})
            ids = self._tokens.assemble(text, show, {})
        return self._tokens.with_bos(ids or [])

    def render(self, messages: Iterable[Mapping[str, Any]]) -> str:
        """Return the prompt as text to look at, not to be tokenised."""
        checked = check_messages(messages)
        text, show, _ = self._render(checked, self._recall(checked, {}))
        return text.translate(show)

    def _recall(
        self, messages: list[Message], replies: Mapping[str, Sequence[int]]
    ) -> dict[int, tuple[int, ...]]:
        """Index → ids of the messages that are known replies; their content becomes the reply's.

        A transcript has no line end after "Assistant:", so other replies get a space there.
        """
        kept: dict[int, tuple[int, ...]] = {}
        by_core: dict[str, str] | None = None
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if by_core is None:
                by_core = {text.strip(): text for text in replies}
            core = message["content"].strip()
            text = by_core.get(core, "") if core else ""
            if text and self._tokens.prints(replies[text], text):
                message["content"] = text
                kept[i] = tuple(replies[text])
            elif self.spec == "transcript":
                message["content"] = " " + core
        return kept

    def _render(
        self, messages: list[Message], kept: Mapping[int, tuple[int, ...]]
    ) -> tuple[str, dict[int, str], dict[str, Reply]]:
        """Text with stand-ins, what they stand for, and the replies among them."""
        contents = [message["content"] for message in messages]
        in_use = set().union(self._source, *contents)
        stand_ins = _stand_ins(in_use)
        hide = {ord(c): next(stand_ins) for c in self._tokens.alphabet if c in in_use}
        show = {ord(stand_in): chr(c) for c, stand_in in hide.items()}
        seeing = [self._tokens.hide_controls(content, hide) for content in contents]
        blind = [content.translate(hide) for content in contents]
        spliced: dict[str, Reply] = {}
        for i, ids in kept.items():
            before, core, after = _outer_space(contents[i])
            stand_in = next(stand_ins)
            show[ord(stand_in)] = core
            spliced[stand_in] = Reply(before, after, ids)
            blind[i] = before + stand_in + after

        text = self._to_text(_with_contents(messages, blind))
        if blind == seeing:
            return text, show, spliced
        seen = self._to_text(_with_contents(messages, seeing))
        if seen.translate(show) != text.translate(show):
            controls = [span.ids for span in self._tokens.controls(text)]
            if controls == [span.ids for span in self._tokens.controls(seen)]:
                return seen, show, {}
        return text, show, spliced


def encode_raw(text: str, model: TokenizerSource) -> list[int]:
    """Return the ids of a raw prompt: BOS as the GGUF says, special parsing off.

    Raises:
        PromptError: the text is not Unicode, or no token comes out.
    """
    _check_unicode(text, "the prompt")
    tokens = SafeTokenizer(model)
    return tokens.with_bos(tokens.ids(text) or [])


def continue_raw(text: str, model: TokenizerSource) -> list[int]:
    """Return the ids of a text that goes on where another ended: no BOS, no space in front.

    Raises:
        PromptError: the text is not Unicode, or the tokenizer cannot do that.
    """
    _check_unicode(text, "the text")
    ids = SafeTokenizer(model).ids(text, continued=True)
    if ids is None:
        raise PromptError(f"{model.name} cannot tokenise {text[:40]!r} as a continuation; give ids")
    return ids


def check_messages(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Return messages as {"role", "content"} dicts of strings; text parts are joined by line ends.

    Raises:
        PromptError: something is not a message; says which one and what was seen.
    """
    checked = [_check_message(i, message) for i, message in enumerate(messages)]
    if not checked:
        raise PromptError("there are no messages; give at least one user message")
    return checked


def _check_message(index: int, message: Mapping[str, Any]) -> Message:
    where = f"message {index}"
    if not isinstance(message, Mapping):
        raise PromptError(f'{where} is {message!r:.60}; use {{"role": …, "content": …}}')
    unknown = [k for k, v in message.items() if k not in ("role", "content") and v is not None]
    if unknown:
        raise PromptError(f"{where} has {unknown[0]!r}, which is not supported; leave it out")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise PromptError(f"{where} has the role {role!r:.60}; use one of {', '.join(ROLES)}")
    if isinstance(content, list):
        for part in content:
            text_part = isinstance(part, Mapping) and part.get("type") == "text"
            if not (text_part and isinstance(part.get("text"), str)):
                raise PromptError(f"{where} has the part {part!r:.60}; only text is supported")
        content = "\n".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise PromptError(f"{where} has the content {content!r:.60}; use a string")
    _check_unicode(content, where)
    return {"role": role, "content": content}


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{where} has half a character (a surrogate) at {error.start}: {text[error.start]!r}"
        ) from None


def _jinja_source(spec: str, model: TokenizerSource) -> str:
    if spec == "chatml":
        return CHATML
    if spec != "template":
        return spec
    if not model.chat_template:
        raise PromptError(
            f'{model.name} has no chat template; set prompt = "chatml", "transcript" or a Jinja '
            f"template for it"
        )
    return model.chat_template


def _plain(messages: list[Message]) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            return message["content"]
    raise PromptError('there is no user message, and prompt = "plain" shows only the last one')


def _transcript(messages: list[Message]) -> str:
    names = {"user": "User: ", "assistant": "Assistant:", "tool": "Tool: "}
    turns = [m for m in messages if m["role"] in names]
    return "".join(f"{names[m['role']]}{m['content']}\n" for m in turns) + "Assistant:"


def _with_contents(messages: list[Message], contents: list[str]) -> list[Message]:
    return [
        {"role": m["role"], "content": content}
        for m, content in zip(messages, contents, strict=True)
    ]


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
