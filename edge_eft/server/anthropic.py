"""Anthropic's messages: a body → one of OpenAI's chat, and chunks in Anthropic's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..text.reply_parser import Content, Piece, Reasoning, ToolCallStart
from . import openai_chat
from .answers import Answering, NamingWriter, new_id
from .api_error import ApiError
from .engine import Engine
from .failure import UnservedError
from .fields import COMMON, Fields, text_parts
from .generation import Ask, Chunk, Done, Generating
from .openai_words import parsed_arguments
from .served import NamedModel
from .sse import Event, as_bytes

KNOWN = (
    *COMMON,
    *("model", "max_tokens", "messages", "system", "tools", "tool_choice", "stop_sequences"),
    *("stream", "thinking", "output_config", "metadata"),
)
# Claude Code begins its system prompt with a line of this name, which differs in every request.
BILLING = "x-anthropic-billing-header:"


def routes(engine: Engine, answering: Answering) -> list[BaseRoute]:
    """Return the routes."""
    messages = answering.endpoint("msg_", ask, MessageWriter)
    return [
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", answering.telling(_count), methods=["POST"]),
    ]


async def _count(engine: Engine, model: NamedModel, body: Mapping[str, Any]) -> dict[str, int]:
    """Return how many tokens a prompt is, also one that does not fit: that is to be found out."""
    request = (await ask(body, engine, model)).requests[0].to_dict()
    try:
        prompts = await engine.ask(model.recipe, "prompts", request=request)
    except UnservedError as error:
        if "n_prompt_tokens" not in error.more:
            raise
        return {"input_tokens": error.more["n_prompt_tokens"]}
    return {"input_tokens": len(next(iter(prompts.values()))["tokens"])}


# -- requests ------------------------------------------------------------------------------


async def ask(body: Mapping[str, Any], engine: Engine, model: NamedModel) -> Ask:
    """Return what a body asks for; raises as `openai_chat.ask`."""
    fields = Fields(body, KNOWN)
    messages = fields.get("messages", list, "a list of messages", [])
    if not messages:
        raise ApiError(400, "messages is missing; give at least one", param="messages")
    stop = fields.get("stop_sequences", list, "a list of texts", [])
    if not all(isinstance(one, str) and one for one in stop):
        raise fields.wrong("stop_sequences", "they must be texts that are not empty")
    tools = fields.get("tools", list, "a list of tools", [])
    chat = {name: body[name] for name in (*COMMON, "max_tokens") if name in body}
    chat |= {"stop": stop, "tools": [_tool(i, tool) for i, tool in enumerate(tools)]}
    chat["messages"] = [*_system(fields), *_messages(messages)]
    chat["tool_choice"] = _tool_choice(fields)
    chat["response_format"] = _response_format(fields)
    fields.flag("stream")
    thinks = fields.get("thinking", dict, 'an object such as {"type": "enabled"}', {}).get("type")
    if thinks in ("enabled", "disabled"):
        facts = await engine.ready(model.recipe)
        chat["chat_template_kwargs"] = openai_chat.thinking(facts, thinks == "enabled")
    asked = await openai_chat.ask(chat, engine, model)
    return replace(asked, ignored=(*fields.ignored, *asked.ignored))


def _system(fields: Fields) -> list[dict[str, Any]]:
    """Return the system prompt as messages, without the line that would cost the prefix cache."""
    system = fields.get("system", str | list, "a text or a list of blocks")
    parts = [] if system is None else text_parts(system, "system", param="system")
    if parts and parts[0]["text"].lower().startswith(BILLING):
        rest = parts[0]["text"].partition("\n")[2].lstrip("\n")
        parts[:1] = [{"type": "text", "text": rest}] if rest else []
    return [{"role": "system", "content": parts}] if parts else []


def _messages(messages: list[Any]) -> Iterator[dict[str, Any]]:
    for i, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant", "system"):
            raise _wrong(f"messages[{i}]", message, "its role is user, assistant or system")
        where, content = f"messages[{i}].content", message.get("content")
        if isinstance(content, list):
            yield from _from_blocks(role, content, where)
        else:
            yield {"role": role, "content": text_parts(content, where)}


def _from_blocks(role: str, blocks: list[Any], where: str) -> Iterator[dict[str, Any]]:
    """Yield the results of tools, which come first, and then the message itself."""
    rest: list[Any] = []
    about: dict[str, Any] = {}
    for i, block in enumerate(blocks):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "tool_result" and role == "user":
            content = block.get("content")
            content = [] if content is None else text_parts(content, f"{where}[{i}].content")
            id = block.get("tool_use_id")
            yield {"role": "tool", "tool_call_id": id, "content": content}
        elif kind == "tool_use" and role == "assistant":
            about.setdefault("tool_calls", []).append(_call(block, f"{where}[{i}]"))
        elif kind == "thinking" and role == "assistant":
            thought = str(block.get("thinking") or "")
            about["reasoning_content"] = about.get("reasoning_content", "") + thought
        elif kind != "redacted_thinking":
            rest += text_parts([block], f"{where}[{i}:]")
    if role == "assistant":  # one reply, cut into blocks where it called a tool
        yield {"role": role, "content": "".join(part["text"] for part in rest), **about}
    elif rest or len(blocks) == 0:
        yield {"role": role, "content": rest}


def _call(block: dict[str, Any], where: str) -> dict[str, Any]:
    name, arguments = block.get("name"), block.get("input", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise _wrong(where, block, "its name is a text and its input an object")
    function = {"name": name, "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _tool(index: int, tool: Any) -> dict[str, Any]:
    """Return a tool in OpenAI's form; of those that Anthropic's server has only the type."""
    if not isinstance(tool, dict):
        raise _wrong(f"tools[{index}]", tool, "it must be an object", "tools")
    if tool.get("type", "custom") not in ("custom", None):
        return {"type": tool["type"]}
    function = {"name": tool.get("name"), "description": tool.get("description")}
    return {"type": "function", "function": {**function, "parameters": tool.get("input_schema")}}


def _tool_choice(fields: Fields) -> Any:
    choice = fields.get("tool_choice", dict, 'an object such as {"type": "auto"}', {"type": "auto"})
    words = {"auto": "auto", "any": "required", "none": "none"}
    if choice.get("type") == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if choice.get("type") not in [*words]:
        raise fields.wrong("tool_choice", "its type is auto, any, tool or none")
    return words[choice["type"]]


def _response_format(fields: Fields) -> Any:
    config = fields.get("output_config", dict, "an object", {})
    fields.ignored += [f"output_config.{name}" for name in config if name != "format"]
    wanted = config.get("format")
    if wanted is None:
        return None
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        raise fields.wrong("output_config", "its format is of type json_schema")
    return {"type": "json_schema", "json_schema": {"schema": wanted.get("schema")}}


def _wrong(where: str, seen: Any, wanted: str, param: str = "messages") -> ApiError:
    return ApiError(400, f"{where} is {seen!r:.60}; {wanted}", param=param)


# -- answers -------------------------------------------------------------------------------

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def error_body(error: ApiError) -> dict[str, Any]:
    """Return an error as Anthropic's clients expect it."""
    message = error.message
    if error.code == "context_length_exceeded" and "n_ctx" in error.more:
        # Clients that make room in a conversation look for these words.
        n, most = error.more["n_prompt_tokens"], error.more["n_ctx"] - 1
        message = f"prompt is too long: {n} tokens > {most} maximum ({message})"
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    about = {"type": kind, "message": message}
    return {"type": "error", "error": about, "request_id": new_id("req_")}


def refused(error: ApiError) -> Response:
    """Return the answer to a request that is not served."""
    body = error_body(error)
    return JSONResponse(body, error.status, {**error.headers, "request-id": body["request_id"]})


class MessageWriter(NamingWriter):
    """Writes chunks as a message."""

    comment = as_bytes(("ping", '{"type": "ping"}'))
    _index, _kind = -1, ""  # of the block that is open

    async def events(self, generating: Generating) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a stream. The first waits until the prompt's tokens are counted."""
        begun = False
        async for chunk in generating.chunks():
            if not begun:
                begun = True
                yield {"type": "message_start", "message": self._message(chunk)}
            for piece in chunk.pieces:
                for event in self._piece(piece):
                    yield event
            if chunk.done:
                for event in (*self._close(), self._end(chunk.done)):
                    yield event
        yield {"type": "message_stop"}

    async def whole(self, generating: Generating) -> dict[str, Any]:
        """Return the message that the events of a stream add up to."""
        message: dict[str, Any] = {}
        async for event in self.events(generating):
            if event["type"] == "message_start":
                message = event["message"]
            elif event["type"] == "content_block_start":
                message["content"].append(event["content_block"])
            elif event["type"] == "content_block_delta":
                _add(message["content"][-1], event["delta"])
            elif event["type"] == "message_delta":
                message |= {**event["delta"], "usage": event["usage"]}
        for block in message["content"]:
            if block["type"] == "tool_use":
                block["input"] = parsed_arguments(block.pop("json", ""))
        return message

    def last_words(self, error: ApiError) -> Event:
        """Return the event that tells of an error in mid-stream."""
        return self.event(error_body(error))

    def _message(self, chunk: Chunk) -> dict[str, Any]:
        """Return the message of which nothing has come but its first chunk."""
        first = chunk.steps[0] if chunk.steps else None
        n, cached = (first.prompt_tokens, first.cached_tokens) if first else (0, 0)
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(n, cached, 0),
        }

    def _piece(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if isinstance(piece, ToolCallStart):
            yield from self._open("tool_use", {"id": piece.id, "name": piece.name, "input": {}})
            return
        if isinstance(piece, Content):
            kind, empty = "text", {"text": ""}
            delta = {"type": "text_delta", "text": piece.text}
        elif isinstance(piece, Reasoning):
            kind, empty = "thinking", {"thinking": "", "signature": ""}
            delta = {"type": "thinking_delta", "thinking": piece.text}
        else:
            kind, empty = "tool_use", {}
            delta = {"type": "input_json_delta", "partial_json": piece.text}
        if kind != self._kind:
            yield from self._open(kind, empty)
        yield self._delta(delta)

    def _open(self, kind: str, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self._close()
        self._index, self._kind = self._index + 1, kind
        block = {"type": kind, **block}
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._kind == "thinking":  # clients keep what has a signature; there is nothing to sign
            yield self._delta({"type": "signature_delta", "signature": ""})
        if self._kind:
            yield {"type": "content_block_stop", "index": self._index}

    @staticmethod
    def _end(done: Done) -> dict[str, Any]:
        ended = done.generation
        stopped = ended.stop_string is not None
        reason = "stop_sequence" if stopped else _REASONS[done.finish_reason]
        delta = {"stop_reason": reason, "stop_sequence": ended.stop_string}
        usage = _usage(ended.prompt_tokens, ended.cached_tokens, done.n_predicted)
        return {"type": "message_delta", "delta": delta, "usage": usage}


def _usage(prompt: int, cached: int, output: int) -> dict[str, int]:
    """Return the counts; the input's do not include what was found in the cache."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
    }


def _add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    kind, (name, text) = delta["type"], list(delta.items())[1]
    name = "json" if kind == "input_json_delta" else name
    block[name] = block.get(name, "") + text
