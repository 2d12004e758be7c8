"""OpenAI's responses, without a memory: a body → one of its chat, and chunks in events of its own.

Nothing is stored here, so a request brings the whole conversation along.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from starlette.routing import BaseRoute, Route

from ..text.reply_parser import Content, Piece, Reasoning, ToolCallStart
from . import openai_chat
from .answers import Answering, NamingWriter, new_id
from .api_error import ApiError
from .engine import Engine
from .fields import COMMON, Fields, text_parts
from .generation import Ask, Done, Generating
from .openai_words import merged_usage
from .served import NamedModel
from .sse import Event, as_bytes

_MEMORY = ("previous_response_id", "conversation", "prompt")
# They change nothing here, and most clients send some of them.
_QUIET = (
    *("store", "metadata", "user", "prompt_cache_key", "safety_identifier", "service_tier"),
    *("stream_options", "parallel_tool_calls"),
)
KNOWN = (
    *COMMON,
    *_MEMORY,
    *_QUIET,
    *("model", "input", "instructions", "tools", "tool_choice", "max_output_tokens", "text"),
    *("stream", "background"),
)


def routes(engine: Engine, answering: Answering) -> list[BaseRoute]:
    """Return the routes."""
    respond = answering.endpoint("resp_", ask, ResponseWriter)
    return [Route(path, respond, methods=["POST"]) for path in ("/v1/responses", "/responses")]


# -- requests ------------------------------------------------------------------------------


async def ask(body: Mapping[str, Any], engine: Engine, model: NamedModel) -> Ask:
    """Return what a body asks for; raises as `openai_chat.ask`."""
    fields = Fields(body, KNOWN)
    for name in _MEMORY:
        if name in fields:
            told = "nothing is stored here; leave it out, and send the whole conversation as input"
            raise fields.wrong(name, told)
    if fields.flag("background"):
        raise fields.wrong("background", "an answer is not kept here for later; use stream")
    chat = {name: body[name] for name in COMMON if name in body}
    chat["messages"] = _messages(fields)
    tools = fields.get("tools", list, "a list of tools", [])
    chat |= {"tools": [_tool(tool) for tool in tools], "tool_choice": body.get("tool_choice")}
    if (choice := body.get("tool_choice")) and isinstance(choice, dict) and "name" in choice:
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    if "max_output_tokens" in fields:
        chat["max_tokens"] = fields.max_tokens(("max_output_tokens",), 1 << 31)
    chat["response_format"] = _response_format(fields)
    asked = await openai_chat.ask(chat, engine, model)
    return replace(asked, ignored=(*fields.ignored, *asked.ignored), said_in="input")


def _messages(fields: Fields) -> list[dict[str, Any]]:
    given = fields.get("input", str | list, "a text or a list of items", [])
    if isinstance(given, str):
        given = [{"role": "user", "content": given}] if given else []
    messages: list[dict[str, Any]] = []
    for i, item in enumerate(given):
        where = f"input[{i}]"
        if not isinstance(item, dict):
            raise ApiError(400, f"{where} is {item!r:.60}; it must be an object", param="input")
        kind = item.get("type", "message" if "role" in item else None)
        if kind == "message":
            content = _parts(item.get("content"), f"{where}.content")
            messages.append({"role": item.get("role"), "content": content})
        elif kind == "function_call":
            _add_call(messages, item, where)
        elif kind == "function_call_output":
            content = _parts(item.get("output"), f"{where}.output")
            id = item.get("call_id")
            messages.append({"role": "tool", "tool_call_id": id, "content": content})
        elif kind == "item_reference":
            told = f"{where} refers to a stored item; nothing is stored here, send the item itself"
            raise ApiError(400, told, param="input")
        elif kind != "reasoning":
            fields.ignored.append(f"{where} ({kind})")
    if not messages:
        raise ApiError(400, "input is missing; give a text or a list of items", param="input")
    if instructions := fields.get("instructions", str, "a text"):
        messages.insert(0, {"role": "system", "content": instructions})
    return messages


def _parts(content: Any, where: str) -> list[dict[str, str]]:
    return text_parts(content, where, ("input_text", "output_text", "text"), "input")


def _add_call(messages: list[dict[str, Any]], item: dict[str, Any], where: str) -> None:
    """Add a call to the assistant's message that it belongs to, or to a new one."""
    name, arguments = item.get("name"), item.get("arguments", "{}")
    if not isinstance(name, str) or not isinstance(arguments, str):
        told = f"{where} is {item!r:.60}; its name and its arguments must be texts"
        raise ApiError(400, told, param="input")
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    function = {"name": name, "arguments": arguments}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    messages[-1].setdefault("tool_calls", []).append(call)


def _tool(tool: Any) -> Any:
    """Return a function as a chat's tool; others as they are, for the chat to skip."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    keys = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {key: tool[key] for key in keys if key in tool}}


def _response_format(fields: Fields) -> Any:
    text = fields.get("text", dict, "an object", {})
    fields.ignored += [f"text.{name}" for name in text if name != "format"]
    wanted = {"type": "text"} if text.get("format") is None else text["format"]
    kinds = ("text", "json_object", "json_schema")
    if not isinstance(wanted, dict) or wanted.get("type") not in kinds:
        raise fields.wrong("text", f"the type of its format is one of {', '.join(kinds)}")
    if wanted["type"] == "json_schema":
        return {"type": "json_schema", "json_schema": wanted}
    return wanted


# -- answers -------------------------------------------------------------------------------


class ResponseWriter(NamingWriter):
    """Writes chunks as a response."""

    def __init__(self, id: str, model: str, body: Mapping[str, Any]) -> None:
        super().__init__(id, model, body)
        self._numbers = count()
        self._output: list[dict[str, Any]] = []
        self._open = False  # whether more of the last item may come
        repeated = ("instructions", "max_output_tokens", "temperature", "top_p")
        self._response = {
            "id": id,
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "text": body.get("text") or {"format": {"type": "text"}},
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "truncation": "disabled",
            "usage": None,
            "metadata": body.get("metadata") or {},
            **{name: body.get(name) for name in repeated},
        }

    async def events(self, generating: Generating) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a stream."""
        for kind in ("created", "in_progress"):
            yield self._event(kind, response=dict(self._response))
        n_tokens = n_thoughts = 0
        async for chunk in generating.chunks():
            for piece in chunk.pieces:
                for event in self._piece(piece):
                    yield event
            n_tokens += sum(not step.is_end_token for step in chunk.steps)
            if any(isinstance(piece, Reasoning) for piece in chunk.pieces):
                n_thoughts = n_tokens  # they stand before all else
            if chunk.done:
                for event in self._end(chunk.done, n_thoughts):
                    yield event

    async def whole(self, generating: Generating) -> dict[str, Any]:
        """Return the response that the last event of a stream has."""
        event: dict[str, Any] = {}
        async for event in self.events(generating):  # noqa: B007
            pass
        response: dict[str, Any] = event["response"]
        return response

    def last_words(self, error: ApiError) -> Event:
        """Return the events that tell of an error in mid-stream."""
        told = {"code": error.code, "message": error.message, "param": error.param}
        first = {"type": "error", "sequence_number": next(self._numbers), **told, **error.body()}
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        failed = {"status": "failed", "error": {"code": code, "message": error.message}}
        then = self._event("failed", response=self._response | failed | {"output": self._output})
        return as_bytes(self.event(first)) + as_bytes(self.event(then))

    def _event(self, kind: str, **values: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "sequence_number": next(self._numbers), **values}

    def _piece(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if isinstance(piece, ToolCallStart):
            about = {"call_id": piece.id, "name": piece.name, "arguments": ""}
            yield from self._begin("function_call", "fc_", about)
            return
        if isinstance(piece, Content | Reasoning):
            said = isinstance(piece, Content)
            if not self._open or self._output[-1]["type"] != ("message" if said else "reasoning"):
                yield from self._begin_text(said)
            part = self._output[-1]["content"][0]
            part["text"] += piece.text
            kind, more = f"{part['type']}.delta", _logprobs(part)
            yield self._event(kind, **self._where(), content_index=0, delta=piece.text, **more)
        else:
            self._output[-1]["arguments"] += piece.text
            kind = "function_call_arguments.delta"
            yield self._event(kind, **self._where(), delta=piece.text)

    def _begin(self, kind: str, prefix: str, about: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self._close("completed")
        item = {"type": kind, "id": new_id(prefix), "status": "in_progress", **about}
        self._output.append(item)
        self._open = True
        yield self._event("output_item.added", output_index=len(self._output) - 1, item=dict(item))

    def _begin_text(self, said: bool) -> Iterator[dict[str, Any]]:
        """Begin a message, or thoughts; either has one part of text."""
        if said:
            yield from self._begin("message", "msg_", {"role": "assistant", "content": []})
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        else:
            yield from self._begin("reasoning", "rs_", {"summary": [], "content": []})
            part = {"type": "reasoning_text", "text": ""}
        self._output[-1]["content"] = [part]
        yield self._event("content_part.added", **self._where(), content_index=0, part=dict(part))

    def _where(self) -> dict[str, Any]:
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1}

    def _close(self, status: str) -> Iterator[dict[str, Any]]:
        """End the item that is open."""
        if not self._open:
            return
        self._open = False
        item, where = self._output[-1], self._where()
        item["status"] = status
        if item["type"] == "function_call":
            said = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("function_call_arguments.done", **where, **said)
        else:
            part = item["content"][0]
            kind, more = f"{part['type']}.done", _logprobs(part)
            yield self._event(kind, **where, content_index=0, text=part["text"], **more)
            yield self._event("content_part.done", **where, content_index=0, part=part)
        yield self._event("output_item.done", output_index=where["output_index"], item=item)

    def _end(self, done: Done, n_thoughts: int) -> Iterator[dict[str, Any]]:
        """End the response."""
        cut = done.finish_reason == "length"
        status = "incomplete" if cut else "completed"
        yield from self._close(status)
        usage = merged_usage({0: done})
        self._response |= {
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "completed_at": None if cut else int(time.time()),
            "output": self._output,
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {
                    **usage["prompt_tokens_details"],
                    "cache_write_tokens": 0,
                },
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": n_thoughts},
                "total_tokens": usage["total_tokens"],
            },
        }
        yield self._event(status, response=self._response)


def _logprobs(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field that events on a message's text have, and no others."""
    return {"logprobs": []} if "logprobs" in part else {}
