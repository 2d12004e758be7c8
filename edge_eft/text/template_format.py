"""A chat template and how it is told messages that it was not written for.

Templates differ in what they take: contents as texts or as lists of parts, a system role or none,
the arguments of tool calls as objects or as text. What a template takes is found out by rendering:
a way that loses a text, or that the template fails on, gives way to the next one. The plainest that
works is taken each time, so that messages become the same prompt whatever came before them.
Whether a text came through is asked of the caller, who can tell (`prompt_format`).
"""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from ..errors import PromptError
from .bounds import Budget
from .messages import Message, check_unicode, joined, with_text_arguments
from .sandbox import ChatTemplate
from .tools import Tool

log = logging.getLogger(__name__)

T = TypeVar("T")


class Way(NamedTuple):
    """One way to hand over messages.

    Attributes:
        contents: as they were given, all of them as texts, or all as lists of parts.
        folds: system messages stand at the head of the user turn that follows them: none, those
            behind the first user turn, or all.
        text_arguments: a tool call's arguments are JSON text.
    """

    contents: Literal["given", "texts", "parts"] = "given"
    folds: Literal["none", "later", "all"] = "none"
    text_arguments: bool = False


class _Parts(list[dict[str, str]]):
    """A content in parts; printed as a whole it is its text, and not Python's idea of a list."""

    def __str__(self) -> str:
        return joined(self)


class TemplateFormat:
    """One template, with its variables.

    Args:
        source: the Jinja text.
        name: of the model, for messages.
        variables: bos_token and the like, and the recipe's.
        may_drop: the template was written for this recipe, by somebody who may leave out system
            messages and answers of tools on purpose.

    Attributes:
        folds: whether the system message was last put at the head of the first user turn.

    Raises:
        PromptError: it is not a template.
    """

    def __init__(
        self, source: str, name: str, variables: Mapping[str, Any], *, may_drop: bool
    ) -> None:
        self._template = ChatTemplate(source, name)
        self._name = name
        self._variables = dict(variables)
        self._may_drop = may_drop
        self._knows_developer = "developer" in source
        # A template that goes through contents may be glad of parts; the others know texts only.
        self._contents = ("given", "parts", "texts") if self._template.iterates else ("texts",)
        self.folds = False
        self._said: set[str] = set()

    @property
    def reads(self) -> frozenset[str]:
        """The names of the variables that the template reads."""
        return self._template.reads

    def render(
        self,
        messages: Sequence[Message],
        budget: Budget,
        variables: Mapping[str, Any],
        *,
        continued: bool,
        tools: Sequence[Tool] = (),
    ) -> str:
        """Return the text of messages that `handed_over` made; `continued`: the last is not closed.

        Raises:
            PromptError: the template fails.
        """
        text = self._template.render(
            messages,
            budget=budget,
            **{**self._variables, **variables},
            add_generation_prompt=not continued,
            tools=list(tools) or None,
            documents=None,
        )
        check_unicode(text, f"what the chat template of {self._name} writes")  # by its escapes
        return text

    def handed_over(self, messages: Sequence[Message], way: Way) -> list[Message]:
        """Return the messages as the template is to get them."""
        told = [dict(message) for message in messages]
        for message in told:
            if "reasoning_content" in message:
                message["thinking"] = message["reasoning_content"]  # gpt-oss's name for it
            if message["role"] == "developer" and not self._knows_developer:
                message["role"] = "system"
        if way.folds != "none":
            told = _folded(told, way.folds == "all")
        if way.text_arguments:
            told = [with_text_arguments(message) for message in told]
        for message in told:
            content = message["content"]
            if way.contents == "texts":
                message["content"] = joined(content)
            elif not isinstance(content, str):
                message["content"] = _Parts(content)
            elif way.contents == "parts":
                message["content"] = _Parts([{"type": "text", "text": content}])
        return told

    def first_good(
        self, messages: Sequence[Message], draw: Callable[[Way], T], lacks: Callable[[T], str]
    ) -> T:
        """Return what `draw` makes in the first way in which nothing is lost.

        Args:
            messages: as checked.
            draw: renders in one way; may raise PromptError.
            lacks: "user", "tool" or "system" where such a text is not in what was drawn, else "".

        Raises:
            PromptError: the first way's, if all fail; or the last user message, or the tool's
                answer that is to be replied to, is lost in all.
        """
        first: PromptError | None = None
        without_system: T | None = None
        for way in self._ways(messages):
            try:
                drawn = draw(way)
            except PromptError as error:
                first = first or error
                continue
            lost = lacks(drawn)
            if lost == "user" or (lost == "tool" and not self._may_drop):
                what = "the user said last" if lost == "user" else "the tool answered last"
                first = first or PromptError(
                    f"the chat template of {self._name} leaves out what {what}; set another "
                    f"format: prompt = …"
                )
            elif lost == "system" and not self._may_drop:
                without_system = drawn if without_system is None else without_system
            else:
                self.folds = way.folds == "all"
                if way.folds == "later":
                    self._say(
                        "the chat template of %s knows a system message only at the beginning: a "
                        "later one stands at the head of the user message that follows it"
                    )
                return drawn
        if without_system is not None:
            self._say("the chat template of %s leaves out a system message")
            return without_system
        assert first is not None
        raise first

    def _ways(self, messages: Sequence[Message]) -> list[Way]:
        """What may work for these messages, the plainest first."""
        roles = [message["role"] for message in messages]
        users = [i for i, role in enumerate(roles) if role == "user"]
        systems = [i for i, role in enumerate(roles) if role in ("system", "developer")]
        folds = ["none"]
        if users and systems:
            folds += ["later", "all"] if systems[-1] > users[0] else ["all"]
        has_calls = any("tool_calls" in message for message in messages)
        ways = itertools.product(
            (False, True)[: 1 + has_calls],
            folds,
            self._contents,
        )
        return [Way(contents, folds, arguments) for arguments, folds, contents in ways]  # type: ignore[arg-type]

    def _say(self, what: str) -> None:
        """Say it once."""
        if what not in self._said:
            self._said.add(what)
            log.warning(what, self._name)


def _folded(messages: list[Message], all_of_them: bool) -> list[Message]:
    """System messages at the head of the user message that follows them, or only the later ones."""
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    kept: list[Message] = []
    heads: list[str] = []
    for i, message in enumerate(messages):
        if message["role"] == "system" and i < users[-1] and (all_of_them or i > users[0]):
            heads.append(joined(message["content"]))
        elif message["role"] == "user" and heads:
            kept.append({**message, "content": _headed(heads, message["content"])})
            heads = []
        else:
            kept.append(message)
    return kept


def _headed(heads: list[str], content: str | list[dict[str, str]]) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return "\n\n".join([*heads, content])
    return [{"type": "text", "text": "\n\n".join(heads) + "\n\n"}, *content]
