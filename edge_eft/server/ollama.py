"""Ollama's interface: a body → one of OpenAI's, and chunks in Ollama's words, a line of JSON each.

The shapes are those of Ollama's docs/api.md. Models come with the recipes, so that what fetches,
makes or deletes one is refused.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..text.reply_parser import Content, Piece, Reasoning
from . import openai_chat, openai_completions
from .answers import Answering, Writer, body_of, is_stream, new_id, not_served
from .api_error import ApiError
from .engine import Engine
from .fields import COMMON, Fields, said_as
from .generation import Ask, Done, Generating
from .guard import App
from .ollama_models import listed, loaded, shown
from .openai_words import NO_EMBEDDINGS, parsed_arguments
from .served import NamedModel, facts_of, find, models
from .sse import Event

# VS Code refuses versions below 0.6.4, and `think` came with 0.9.0.
VERSION = "0.9.0"
# At the address itself, for whoever is no browser.
HERE = (
    "edge-eft is running. OpenAI's interface is at /v1, Ollama's and Anthropic's at this address; "
    "/openapi.json lists all paths.\n"
)
_KNOWN = (
    *COMMON,
    *("model", "name", "options", "format", "think", "stream", "stop"),
)
CHAT = (*_KNOWN, "messages", "tools")
GENERATE = (*_KNOWN, "prompt", "system", "suffix", "images", "raw")
NAMES = {"repeat_penalty": "repetition_penalty", "num_predict": "max_tokens"}
OPTIONS = (*COMMON, *NAMES, "stop")
_RANGES = {
    "temperature": (0.0, math.inf),
    "top_k": (0, math.inf),
    "top_p": (1e-6, 1.0),
    "min_p": (0.0, 1.0),
}
# What is not done here, and why not.
NOT_HERE = {
    **dict.fromkeys(
        ("pull", "push", "create", "copy", "delete"), "models come with the recipes of `serve`"
    ),
    **dict.fromkeys(("embed", "embeddings"), NO_EMBEDDINGS),
}


def routes(engine: Engine, answering: Answering) -> list[BaseRoute]:
    """Return the routes, but for `/`, where clients find out whether an Ollama is there."""

    async def version(request: Request) -> Response:
        return JSONResponse({"version": VERSION})

    async def tags(request: Request) -> Response:
        return JSONResponse({"models": [listed(engine, model) for model in models(engine)]})

    async def running(request: Request) -> Response:
        there = [model for model in models(engine) if engine.is_loaded(model.recipe)]
        return JSONResponse({"models": [loaded(engine, model) for model in there]})

    async def show(request: Request) -> Response:
        model = _find(engine, await body_of(request))
        return JSONResponse(shown(engine, model, await facts_of(engine, model)))

    async def answer(request: Request) -> App:
        body, is_chat = await body_of(request), request.url.path == "/api/chat"
        model, id = _find(engine, body), new_id("chatcmpl-")
        stream = is_stream(body) if body.get("stream") is not None else True
        writer = OllamaWriter(id, str(body.get("model") or model.id), body, is_chat=is_chat)
        said, nothing = (body.get("messages"), []) if is_chat else (body.get("prompt"), "")
        if said is None or said == nothing:  # Ollama's way to load a model, or to be rid of it
            if _is_zero(body.get("keep_alive")):
                await engine.unload(model.recipe)
                return JSONResponse(writer.nothing("unload"))
            await engine.ready(model.recipe)
            return JSONResponse(writer.nothing("load"))
        return await answering.answer(
            request,
            ask(body, engine, model) if is_chat else ask_generate(body, engine, model),
            writer,
            id,
            stream=stream,
        )

    found = [
        ("/api/version", version, ["GET"]),
        ("/api/tags", tags, ["GET"]),
        ("/api/ps", running, ["GET"]),
        ("/api/show", show, ["POST"]),
        ("/api/chat", answer, ["POST"]),
        ("/api/generate", answer, ["POST"]),
        *((f"/api/{name}", not_served(why), ["POST", "DELETE"]) for name, why in NOT_HERE.items()),
    ]
    return [Route(path, endpoint, methods=methods) for path, endpoint, methods in found]


def _error(error: ApiError) -> dict[str, str]:
    return {"error": error.message}


def refused(error: ApiError) -> Response:
    """Return the answer to a request that is not served."""
    return JSONResponse(_error(error), error.status, error.headers)


def _find(engine: Engine, body: Mapping[str, Any]) -> NamedModel:
    model = body.get("model")
    return find(engine, body.get("name") if model in (None, "") else model)  # "name" is older


# -- requests ------------------------------------------------------------------------------


async def ask(body: Mapping[str, Any], engine: Engine, model: NamedModel) -> Ask:
    """Return what the body of a chat asks for; raises as `openai_chat.ask`."""
    fields = Fields(body, CHAT)
    messages = fields.get("messages", list, "a list of messages", [])
    chat = {"messages": [*_messages(messages)], "tools": body.get("tools")}
    return await _ask(fields, body, chat, engine, model)


async def ask_generate(body: Mapping[str, Any], engine: Engine, model: NamedModel) -> Ask:
    """Return what the body of a `generate` asks for; raises as `ask`."""
    fields = Fields(body, GENERATE)
    if fields.get("suffix", str, "a text"):
        raise fields.wrong("suffix", "these models only continue a text; leave it out")
    if fields.get("images", list, "a list"):
        raise no_images("images")
    prompt, system = fields.get("prompt", str, "a text"), fields.get("system", str, "a text")
    if fields.flag("raw"):
        fields.ignored += [name for name in ("system", "think") if name in fields]
        return await _ask(fields, body, {"prompt": prompt}, engine, model)
    messages = [{"role": "system", "content": system}] if system else []
    chat = {"messages": [*messages, {"role": "user", "content": prompt}]}
    return await _ask(fields, body, chat, engine, model)


async def _ask(
    fields: Fields,
    body: Mapping[str, Any],
    asked_for: dict[str, Any],
    engine: Engine,
    model: NamedModel,
) -> Ask:
    """Return what OpenAI's body means that has the same words."""
    options = fields.get("options", dict, "an object", {})
    facts = await engine.ready(model.recipe)
    known = {name: _plain(name, value) for name, value in options.items() if name in OPTIONS}
    fields.ignored += [f"options.{name}" for name in options if name not in known]
    common = {name: body[name] for name in (*COMMON, "stop") if name in body}
    asked_for |= {**common, **known, "response_format": _response_format(fields)}
    for theirs, ours in NAMES.items():
        if theirs in asked_for:
            asked_for[ours] = asked_for.pop(theirs)
    if asked_for.get("max_tokens") is None:
        asked_for["max_tokens"] = -1
    if "messages" in asked_for and "think" in fields:
        on = body["think"] in ("low", "medium", "high") or fields.flag("think")
        asked_for["chat_template_kwargs"] = openai_chat.thinking(facts, on)
    dialect = openai_chat if "messages" in asked_for else openai_completions
    with said_as({theirs: ours for theirs, ours in NAMES.items() if theirs in options}):
        asked = await dialect.ask(asked_for, engine, model)
    return replace(asked, ignored=(*fields.ignored, *asked.ignored))


def _plain(name: str, value: Any) -> Any:
    """Return an option's value as ours is: Ollama takes some for off, and cuts others to a range.

    So do its api/types.go (whole numbers), sample/samplers.go and runner, where no number of tokens
    below 1 ends a reply.
    """
    if name == "stop" and isinstance(value, str | list):
        return [text for text in ([value] if isinstance(value, str) else value) if text != ""]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if name in ("top_k", "seed", "num_predict"):
        value = int(value)
    if name in ("num_predict", "repeat_penalty") and value <= 0:
        return -1 if name == "num_predict" else 1.0
    low, high = _RANGES.get(name, (value, value))
    return min(max(value, low), high)


def _is_zero(keep_alive: Any) -> bool:
    """Return whether a model is to be unloaded at once: 0, or a text such as "0s"."""
    if isinstance(keep_alive, str):
        return bool(re.fullmatch(r"[+-]?0+(ms|s|m|h)?", keep_alive))
    return keep_alive == 0 and not isinstance(keep_alive, bool)


def _response_format(fields: Fields) -> Any:
    wanted = fields.get("format", str | dict, '"json" or a JSON schema')
    if wanted is None or wanted == "":
        return None
    if isinstance(wanted, dict):
        return {"type": "json_schema", "json_schema": {"schema": wanted}}
    if wanted != "json":
        raise fields.wrong("format", 'it must be "json" or a JSON schema')
    return {"type": "json_object"}


def _messages(messages: list[Any]) -> Iterator[Any]:
    """Yield messages in OpenAI's form; calls have no ids here, and results name the tool."""
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            told = f"messages[{i}] is {message!r:.40}; it must be an object"
            raise ApiError(400, told, param="messages")
        if message.get("images"):
            raise no_images(f"messages[{i}].images")
        content = message.get("content")
        about = {"role": message.get("role"), "content": "" if content is None else content}
        if thought := message.get("thinking"):
            about["reasoning_content"] = thought
        if calls := message.get("tool_calls"):
            about["tool_calls"] = calls
        if name := message.get("tool_name") or message.get("name"):
            about["name"] = name
        yield about


def no_images(where: str) -> ApiError:
    """Return the refusal of pictures."""
    return ApiError(400, f"{where}: these models read text alone; leave it out", param="images")


# -- answers -------------------------------------------------------------------------------


class OllamaWriter(Writer):
    """Writes chunks as Ollama's lines.

    Args:
        is_chat: whether the text stands in a message.
    """

    media_type, last, comment = "application/x-ndjson", None, None

    def __init__(self, id: str, model: str, body: Mapping[str, Any], *, is_chat: bool) -> None:
        super().__init__(id, model, body)
        self._is_chat = is_chat
        self._begun = time.perf_counter_ns()
        self._loaded = self._begun

    async def events(self, generating: Generating) -> AsyncIterator[dict[str, Any]]:
        """Yield the lines of a stream; a call of a tool comes when it is whole."""
        self._loaded = time.perf_counter_ns()
        calls = openai_chat.Message()
        async for chunk in generating.chunks():
            calls.take(piece for piece in chunk.pieces if _is_of_call(piece))
            for piece in chunk.pieces:
                if isinstance(piece, Content):
                    yield self._line(piece.text, "")
                elif isinstance(piece, Reasoning):
                    yield self._line("", piece.text)
            if chunk.done:
                if calls.tool_calls:
                    yield self._line("", "", calls.tool_calls)
                yield {**self._line("", "", done=True), **self._end(chunk.done)}

    async def whole(self, generating: Generating) -> dict[str, Any]:
        """Return the answer as one object."""
        self._loaded = time.perf_counter_ns()
        (chunk,) = await generating.collected()
        assert chunk.done
        said = openai_chat.Message(chunk.pieces)
        line = self._line(said.content, said.reasoning, said.tool_calls, done=True)
        return {**line, **self._end(chunk.done)}

    def event(self, one: Any) -> Event:
        """Return an object as a line."""
        return json.dumps(one).encode() + b"\n"

    def last_words(self, error: ApiError) -> Event:
        """Return the line that tells of an error in mid-stream."""
        return self.event(_error(error))

    def nothing(self, done_reason: str) -> dict[str, Any]:
        """Return the answer to a request that only loads or unloads a model."""
        return {**self._line("", "", done=True), "done_reason": done_reason}

    def _line(
        self,
        text: str,
        thought: str,
        calls: list[dict[str, Any]] | None = None,
        *,
        done: bool = False,
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"role": "assistant"} if self._is_chat else {}
        said["content" if self._is_chat else "response"] = text
        if thought:
            said["thinking"] = thought
        if calls:
            said["tool_calls"] = [_call(call["function"]) for call in calls]
        line = {"model": self._model, "created_at": datetime.now(UTC).isoformat()}
        return {**line, **({"message": said} if self._is_chat else said), "done": done}

    def _end(self, done: Done) -> dict[str, Any]:
        """Return how it ended, and what took how long, in nanoseconds."""
        times = done.timings
        return {
            "done_reason": "length" if done.finish_reason == "length" else "stop",
            "total_duration": time.perf_counter_ns() - self._begun,
            "load_duration": self._loaded - self._begun,
            "prompt_eval_count": done.generation.prompt_tokens,
            "prompt_eval_duration": int(times["prompt_ms"] * 1e6),
            "eval_count": done.n_predicted,
            "eval_duration": int(times["predicted_ms"] * 1e6),
        }


def _is_of_call(piece: Piece) -> bool:
    return not isinstance(piece, Content | Reasoning)


def _call(function: Mapping[str, str]) -> dict[str, Any]:
    arguments = parsed_arguments(function["arguments"])
    return {"function": {"name": function["name"], "arguments": arguments}}
