"""Messages → token ids for one role; content can never become a control token.

Every role has its own prompt format: the model's own chat template, a built-in one, or inline
Jinja. This module renders messages with it (`template_format.py`) and tokenises the result. It
knows nothing of roles, contexts or logits. How no text of a message becomes a control token, and
how none is lost, is in `stand_ins.py`.
"""

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..errors import PromptError
from .bounds import Budget
from .formats import NAMED, check_format, check_template_kwargs
from .messages import Message, check_messages, check_unicode, joined, translated
from .reply_form import ReplyForm, reply_form
from .sandbox import budget_for
from .stand_ins import Drawer, Drawing
from .template_format import TemplateFormat, Way
from .tokenizer import SafeTokenizer, TokenizerSource
from .tools import Tool, check_tools

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

REMEMBERED_REPLIES = 256


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

    A last message of the assistant's is continued: the prompt ends where that message does.

    Args:
        spec: `template` (the model's own chat template), `template:NAME` (another one that its
            file has), `chatml`, `plain` (the last user message's content alone), `transcript` (the
            turns as "User: …" and "Assistant: …" lines, ending "Assistant:"), or a Jinja template,
            which contains `{{` or `{%`.
            A system message is left out by `plain` and `transcript`: it reaches the emulation
            through the tuned model, whose delta carries it.
        model: whose tokens they become.
        template_kwargs: variables for the template; the other formats have no use for them.
        printed: id → bytes of the tokens that print in replies what they do in another model.

    Attributes:
        template_hash: sha256 of the Jinja source, hex; None for the formats that are not Jinja.

    Raises:
        PromptError: no such format, or the model has no template, or it is not Jinja.
    """

    def __init__(
        self,
        spec: str,
        model: TokenizerSource,
        *,
        template_kwargs: Mapping[str, Any] | None = None,
        printed: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        self.spec = check_format(spec)
        self.template_hash: str | None = None
        self._tokens = SafeTokenizer(model, printed)
        self._source = ""
        self._template: TemplateFormat | None = None
        self._kwargs = check_template_kwargs(template_kwargs or {}, "template_kwargs")
        if spec not in _TEXT_FORMATS:
            self._source = _jinja_source(spec, model)
            check_unicode(self._source, "the chat template")
            self.template_hash = hashlib.sha256(self._source.encode()).hexdigest()
            variables = {
                "bos_token": self._tokens.text(model.bos_token),
                "eos_token": self._tokens.text(model.eos_token),
            }
            own = spec == "template" or spec.startswith(NAMED)
            self._template = TemplateFormat(self._source, model.name, variables, may_drop=not own)

    @property
    def variables(self) -> frozenset[str]:
        """The names of the variables that the template reads; none without one."""
        return frozenset() if self._template is None else self._template.reads

    def reads(self, variable: str) -> bool:
        """Return whether a template here reads the variable of this name."""
        return variable in self.variables

    @property
    def source(self) -> str:
        """The Jinja source; "" for the formats that are not Jinja."""
        return self._source

    @property
    def folds_system(self) -> bool:
        """Whether the template has no system role: such a message is put into the first turn."""
        return self._template is not None and self._template.folds

    @functools.cached_property
    def reply_form(self) -> ReplyForm:
        """What form the replies take, as far as the template tells."""
        return reply_form(self._source, self._tokens.control_texts)

    def encode(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        replies: Mapping[str, Sequence[int]] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        check: Callable[[int], object] = lambda _: None,
    ) -> list[int]:
        """Return the prompt as token ids, BOS included if the model wants one.

        Args:
            messages: as in `messages.check_messages`.
            replies: text → ids of replies that were generated; an assistant message with such a
                text (apart from outer white space) is given back as these ids, where the format
                shows it whole.
            template_kwargs: variables for the template, over those of the format.
            tools: as in `tools.check_tools`; a format that does not show tools goes without.
            check: called with a number of tokens that the prompt has at least, before it is
                tokenised, which takes a second per megabyte; what it raises ends it.

        Raises:
            PromptError: a message or tool is not one, the template fails on them or leaves out the
                last user message or a tool's last answer, or no token comes out.
        """
        checked = _check(messages)
        kwargs = self._kwargs | check_template_kwargs(template_kwargs or {})
        kept = self._recall(checked, replies or {})
        shown = self._shown(tools)
        budget = budget_for(checked, shown)
        drawing = self._draw(checked, kept, kwargs, shown, budget)
        check(self._tokens.fewest(translated(drawing.text, drawing.show)))
        ids = self._tokens.assemble(drawing.text, drawing.show, drawing.spliced)
        if ids is None:
            # The model's tokenizer cannot continue in mid-text: without the splices, then.
            drawing = self._draw(checked, {}, kwargs, shown, budget)
            ids = self._tokens.assemble(drawing.text, drawing.show, {})
        return self._tokens.with_bos(ids or [])

    def render(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        template_kwargs: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Return the prompt as text to look at, not to be tokenised."""
        checked = _check(messages)
        kwargs = self._kwargs | check_template_kwargs(template_kwargs or {})
        kept, shown = self._recall(checked, {}), self._shown(tools)
        drawing = self._draw(checked, kept, kwargs, shown, budget_for(checked, shown))
        return drawing.text.translate(drawing.show)

    def _shown(self, tools: Sequence[Mapping[str, Any]]) -> list[Tool]:
        """The definitions that the format shows: all or none."""
        return check_tools(tools) if tools and self.reads("tools") else []

    def _recall(
        self, messages: list[Message], replies: Mapping[str, Sequence[int]]
    ) -> dict[int, tuple[int, ...]]:
        """Index → ids of the messages that are known replies; their content becomes the reply's.

        A transcript has no line end after "Assistant:", so other replies get a space there.
        """
        kept: dict[int, tuple[int, ...]] = {}
        by_core: dict[str, str] | None = None
        for i, message in enumerate(messages):
            if message["role"] != "assistant" or not isinstance(message["content"], str):
                continue
            if by_core is None:
                by_core = {text.strip(): text for text in replies}
            core = message["content"].strip()
            text = by_core.get(core, "") if core else ""
            if text and self._tokens.prints(replies[text], text):
                message["content"] = text
                kept[i] = tuple(replies[text])
            elif self.spec == "transcript" and (core or "tool_calls" not in message):
                continued = i == len(messages) - 1
                message["content"] = " " + (message["content"].lstrip() if continued else core)
        return kept

    def _draw(
        self,
        messages: list[Message],
        kept: Mapping[int, tuple[int, ...]],
        kwargs: Mapping[str, Any],
        tools: list[Tool],
        budget: Budget,
    ) -> Drawing:
        """Render messages with stand-ins: the template's first way that loses nothing."""
        drawer = Drawer(self.spec, self._source, self._tokens, messages, kept, kwargs, tools)
        if self._template is None:
            to_text = _TEXT_FORMATS[self.spec]
            return drawer.draw(lambda told, _: to_text(told, drawer.continued))
        template = self._template

        def draw(way: Way) -> Drawing:
            return drawer.draw(
                lambda told, shown: template.render(
                    template.handed_over(told, way),
                    budget,
                    drawer.kwargs,
                    continued=drawer.continued,
                    tools=shown,
                )
            )

        return template.first_good(messages, draw, lambda drawing: drawing.lacks)


def encode_raw(
    text: str, model: TokenizerSource, check: Callable[[int], object] = lambda _: None
) -> list[int]:
    """Return the ids of a raw prompt: BOS as the GGUF says, special parsing off.

    Args:
        check: as of `PromptFormat.encode`.

    Raises:
        PromptError: the text is not Unicode, or no token comes out.
    """
    check_unicode(text, "the prompt")
    tokens = SafeTokenizer(model)
    check(tokens.fewest(text))
    return tokens.with_bos(tokens.ids(text) or [])


def continue_raw(text: str, model: TokenizerSource) -> list[int]:
    """Return the ids of a text that goes on where another ended: no BOS, no space in front.

    Raises:
        PromptError: the text is not Unicode, or the tokenizer cannot do that.
    """
    check_unicode(text, "the text")
    ids = SafeTokenizer(model).ids(text, continued=True)
    if ids is None:
        raise PromptError(f"{model.name} cannot tokenise {text[:40]!r} as a continuation; give ids")
    return ids


def _jinja_source(spec: str, model: TokenizerSource) -> str:
    if spec == "chatml":
        return CHATML
    if spec.startswith(NAMED):
        named = model.named_template(spec.removeprefix(NAMED))
        if not named:
            raise PromptError(f"{model.name} has no chat template named {spec[len(NAMED) :]!r:.60}")
        return named
    if spec != "template":
        return spec
    if not model.chat_template:
        raise PromptError(
            f'{model.name} has no chat template; set prompt = "chatml", "transcript" or a Jinja '
            f"template for it"
        )
    return model.chat_template


def _plain(messages: list[Message], continued: bool) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            so_far = joined(messages[-1]["content"]) if continued else ""
            return joined(message["content"]) + so_far
    raise PromptError('there is no user message, and prompt = "plain" shows only the last one')


def _transcript(messages: list[Message], continued: bool) -> str:
    names = {"user": "User: ", "assistant": "Assistant:", "tool": "Tool: "}
    turns = [m for m in messages if m["role"] in names and (m["content"] or "tool_calls" not in m)]
    text = "".join(f"{names[m['role']]}{joined(m['content'])}\n" for m in turns)
    return text[:-1] if continued else text + "Assistant:"


_TEXT_FORMATS: dict[str, Callable[[list[Message], bool], str]] = {
    "plain": _plain,
    "transcript": _transcript,
}


def _check(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    checked = check_messages(messages, keep_parts=True)
    if checked[-1]["role"] == "assistant":  # it is continued as one text
        checked[-1]["content"] = joined(checked[-1]["content"])
    return checked
