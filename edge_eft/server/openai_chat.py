"""OpenAI's chat completions: a body → an `Ask`, and its chunks in OpenAI's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ..engine.constraint import Constraint
from ..engine.reply import Step
from ..errors import EdgeEftError
from ..text.reply_form import ReplyForm
from ..text.reply_parser import (
    Content,
    Piece,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
)
from ..text.tools import Tool, check_tools
from .answers import Writer
from .api_error import ApiError
from .engine import Engine
from .explained import explained
from .fields import MAX_CHOICES, MAX_TOP_LOGPROBS, SAMPLING, Fields
from .generation import Ask, Chunk, Done, Generating, reply_form
from .openai_words import base, check_stream_options, merged_usage, token_logprob, wants_usage
from .served import NamedModel
from .tokens import prefix_ids
from .tool_choice import tool_constraint

KNOWN = (
    *SAMPLING,
    *("messages", "max_completion_tokens", "logprobs", "top_logprobs", "response_format"),
    *("tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "reasoning_format"),
    "return_progress",
)


async def ask(body: Mapping[str, Any], engine: Engine, model: NamedModel) -> Ask:
    """Return what a body asks for.

    Raises:
        ApiError: a field is missing or wrong. UnservedError: the model cannot be loaded.
    """
    fields = Fields(body, KNOWN)
    messages = fields.get("messages", list, "a list of messages")
    if not messages:
        raise ApiError(400, "messages is missing; give at least one", param="messages")
    if strange := [i for i, message in enumerate(messages) if not isinstance(message, dict)]:
        i = strange[0]  # a list of numbers would be taken for token ids
        told = f"messages[{i}] is {messages[i]!r:.60}; it must be an object"
        raise ApiError(400, told, param="messages")
    facts = await engine.ready(model.recipe)
    tools = _tools(fields)
    choice = _tool_choice(fields)
    constraint = fields.constraint()
    if choice not in ("auto", "none"):
        called = _call_constraint(reply_form(engine, model), tools, choice)
        constraint = constraint or called
    n_top = fields.count("top_logprobs", 0, MAX_TOP_LOGPROBS, 0)
    longest = fields.max_tokens(_LENGTHS, facts["n_ctx"])
    more: dict[str, Any] = {"max_tokens": longest, "top_logprobs": n_top}
    more["prefix_ids"] = prefix_ids(fields, facts)
    if tools and choice != "none":
        more["tools"] = tools
        if choice == "auto" and "tools" not in facts["reads"]:
            fields.ignored.append("tools")
    if constraint is not None:
        more["constraint"] = constraint
    if variables := _variables(fields, facts):
        more["chat_template_kwargs"] = variables
    n = fields.count("n", 1, MAX_CHOICES, 1)
    for name in ("stream", "logprobs"):
        fields.flag(name)
    check_stream_options(fields)
    reasoning = fields.get("reasoning_format", str, "a text", "auto") != "none"
    return Ask(
        model,
        tuple(fields.choices(messages, model, n, **more)),
        parses_tools=bool(tools) and choice != "none",
        parses_reasoning=reasoning,
        ignored=tuple(fields.ignored),
        said_in="messages",
        tells_progress=fields.tells_progress(),
    )


def thinking(facts: Mapping[str, Any], thinks: bool) -> dict[str, bool]:
    """Return the template variables that turn reasoning on or off, where a template reads any."""
    return {"enable_thinking": thinks} if "enable_thinking" in facts["reads"] else {}


_LENGTHS = ("max_completion_tokens", "max_tokens")


def _tools(fields: Fields) -> list[Tool]:
    """Return the tools that are functions; others are noted as ignored."""
    usable = []
    for i, tool in enumerate(fields.get("tools", list, "a list of tools", [])):
        if isinstance(tool, dict) and tool.get("type", "function") != "function":
            fields.ignored.append(f"tools[{i}] ({tool['type']})")
        else:
            usable.append({"type": "function", **tool} if isinstance(tool, dict) else tool)
    try:
        return check_tools(usable)
    except EdgeEftError as error:
        raise ApiError(400, f"tools: {error}", param="tools") from None


def _variables(fields: Fields, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template variables that a template reads; others are noted as ignored."""
    given = fields.get("chat_template_kwargs", dict, "an object", {})
    known = {name: value for name, value in given.items() if name in facts["reads"]}
    fields.ignored += [f"chat_template_kwargs.{name}" for name in given if name not in known]
    return known


def _tool_choice(fields: Fields) -> str | dict[str, Any]:
    choice: str | dict[str, Any] = fields.get(
        "tool_choice", str | dict, "auto, none, required or a function", "auto"
    )
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        raise fields.wrong("tool_choice", "it must be auto, none, required or a function")
    return choice


def _call_constraint(
    form: ReplyForm, tools: list[Tool], choice: str | dict[str, Any]
) -> Constraint:
    """Return what holds a reply to a call of a tool."""
    try:
        return tool_constraint(form, tools, choice)
    except EdgeEftError as error:
        if str(error).startswith("tool_choice"):
            raise ApiError(400, str(error), param="tool_choice") from None
        raise ApiError(400, f"tools: {error}", param="tools") from None


# -- answers -------------------------------------------------------------------------------


class ChatWriter(Writer):
    """Writes chunks as chat completions."""

    def __init__(self, id: str, model: str, body: Mapping[str, Any]) -> None:
        super().__init__(id, model, body)
        self._with_usage = wants_usage(body)
        self._logprobs = bool(body.get("logprobs"))
        self._n_top = body.get("top_logprobs") or 0
        self._n_explained = body.get("explain") or 0

    async def events(self, generating: Generating) -> AsyncIterator[dict[str, Any]]:
        """Yield the objects of a stream, without its end mark."""
        done: dict[int, Done] = {}
        for i in range(len(generating.replies)):
            yield self._chunk(i, {"role": "assistant", "content": ""})
        async for chunk in generating.chunks():
            for event in self._deltas(chunk):
                yield event
            if chunk.done:
                done[chunk.index] = chunk.done
                last = self._chunk(chunk.index, {}, finish_reason=chunk.done.finish_reason)
                yield last | {"timings": chunk.done.timings}
        if self._with_usage:
            usage = merged_usage(done, len(done))
            yield base(self._id, "chat.completion.chunk", self._model) | {
                "choices": [],
                "usage": usage,
            }

    def _deltas(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Return the objects for what came; the first of them tells of the tokens."""
        if chunk.progress:
            return [self._chunk(chunk.index, {}) | {"prompt_progress": asdict(chunk.progress)}]
        events = [self._chunk(chunk.index, delta) for delta in map(_delta, chunk.pieces)]
        about = self._about(chunk.steps)
        if about and not events and any(about.values()):
            events = [self._chunk(chunk.index, {"content": ""})]
        if events:
            events[0]["choices"][0] |= about
        return events

    def _about(self, steps: tuple[Step, ...]) -> dict[str, Any]:
        about: dict[str, Any] = {}
        if self._logprobs:
            told = [token_logprob(step, self._n_top) for step in steps if not step.is_end_token]
            about["logprobs"] = {"content": told, "refusal": None} if told else None
        if self._n_explained:
            about["explain"] = explained(steps, self._n_explained)
        return about

    def _chunk(
        self, index: int, delta: dict[str, Any], finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return base(self._id, "chat.completion.chunk", self._model) | {"choices": [choice]}

    async def whole(self, generating: Generating) -> dict[str, Any]:
        """Return the answer as one object."""
        chunks = await generating.collected()
        done = {chunk.index: chunk.done for chunk in chunks if chunk.done}
        choices = [
            {
                "index": chunk.index,
                "message": self._message(chunk, generating.before[chunk.index]).to_dict(),
                "logprobs": None,
                "finish_reason": done[chunk.index].finish_reason,
                **self._about(chunk.steps),
            }
            for chunk in chunks
        ]
        return base(self._id, "chat.completion", self._model) | {
            "choices": choices,
            "usage": merged_usage(done, len(done)),
            "timings": done[0].timings,
        }

    @staticmethod
    def _message(chunk: Chunk, before: Iterable[Piece]) -> Message:
        """Return what came; of calls of tools all, as a part of one is of no use."""
        message = Message(before)
        message.content = message.reasoning = ""
        message.take(chunk.pieces)
        return message


class Message:
    """An assistant's message as its pieces come."""

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self.content = ""
        self.reasoning = ""
        self.tool_calls: list[dict[str, Any]] = []
        self.take(pieces)

    def take(self, pieces: Iterable[Piece]) -> None:
        """Add pieces."""
        for piece in pieces:
            if isinstance(piece, Content):
                self.content += piece.text
            elif isinstance(piece, Reasoning):
                self.reasoning += piece.text
            elif isinstance(piece, ToolCallStart):
                function = {"name": piece.name, "arguments": ""}
                self.tool_calls.append({"id": piece.id, "type": "function", "function": function})
            else:
                self.tool_calls[piece.index]["function"]["arguments"] += piece.text

    def to_dict(self) -> dict[str, Any]:
        """Return OpenAI's message."""
        content = self.content if self.content or not self.tool_calls else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        return message


def _delta(piece: Piece) -> dict[str, Any]:
    if isinstance(piece, Content):
        return {"content": piece.text}
    if isinstance(piece, Reasoning):
        return {"reasoning_content": piece.text}
    if isinstance(piece, ToolCallArguments):
        return {"tool_calls": [{"index": piece.index, "function": {"arguments": piece.text}}]}
    function = {"name": piece.name, "arguments": ""}
    call = {"index": piece.index, "id": piece.id, "type": "function", "function": function}
    return {"tool_calls": [call]}
