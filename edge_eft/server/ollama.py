"""Ollama's interface: a body → one of OpenAI's, and chunks in Ollama's words, a line of JSON each.

The shapes are those of Ollama's docs/api.md. Models come with the recipes, so that what fetches,
makes or deletes one is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..text.reply_parser import Content, Piece, Reasoning
from . import openai_chat, openai_completions
from .answers import Answering, body_of, is_stream, new_id, shaped
from .api_error import ApiError
from .engine import Engine
from .fields import COMMON, Fields, said_as
from .generation import Ask, Done, Generating, reply_form
from .guard import App
from .openai_words import parsed_arguments
from .served import NamedModel, facts_of, file_of, find, models, role_of
from .sse import Event

# VS Code refuses versions below 0.6.4, and `think` came with 0.9.0.
VERSION = "0.9.0"
_STARTED = datetime.now(UTC).isoformat()
_KNOWN = (
    *COMMON,
    *("model", "name", "options", "format", "think", "stream", "keep_alive", "stop"),
)
CHAT = (*_KNOWN, "messages", "tools")
GENERATE = (*_KNOWN, "prompt", "system", "suffix", "images", "raw")
NAMES = {"repeat_penalty": "repetition_penalty", "num_predict": "max_tokens"}
OPTIONS = (*COMMON, *NAMES, "stop", "num_ctx")
# What is not done here, and why not.
NOT_HERE = {
    **dict.fromkeys(
        ("pull", "push", "create", "copy", "delete"), "models come with the recipes of `serve`"
    ),
    **dict.fromkeys(("embed", "embeddings"), "these models make no embeddings"),
}


def routes(engine: Engine, answering: Answering) -> list[BaseRoute]:
    """Return the routes. HEAD / is how clients find out whether an Ollama is there."""

    async def there(request: Request) -> Response:
        return Response()

    async def version(request: Request) -> Response:
        return JSONResponse({"version": VERSION})

    async def tags(request: Request) -> Response:
        return JSONResponse({"models": [_listed(engine, model) for model in models(engine)]})

    async def running(request: Request) -> Response:
        loaded = [model for model in models(engine) if engine.is_loaded(model.recipe)]
        return JSONResponse({"models": [_running(engine, model) for model in loaded]})

    async def show(request: Request) -> Response:
        model = _find(engine, await body_of(request))
        return JSONResponse(_shown(engine, model, await facts_of(engine, model)))

    async def answer(request: Request) -> App:
        body, is_chat = await body_of(request), request.url.path == "/api/chat"
        model, id = _find(engine, body), new_id("chatcmpl-")
        stream = is_stream(body) if body.get("stream") is not None else True
        writer = OllamaWriter(str(body.get("model") or model.id), is_chat=is_chat)
        given = body.get("messages" if is_chat else "prompt")
        if given is None or given == ([] if is_chat else ""):  # Ollama's way to load a model
            await engine.ready(model.recipe)
            return JSONResponse(writer.loaded())
        return await answering.answer(
            request,
            ask(body, engine, model) if is_chat else ask_generate(body, engine, model),
            writer,
            id=id,
            stream=stream,
            event=as_line,
            last=None,
            last_words=lambda error: as_line(_error(error)),
            media_type="application/x-ndjson",
            comment=None,
        )

    async def not_here(request: Request) -> Response:
        path = request.url.path
        told = f"{path} is not served: {NOT_HERE[path.removeprefix('/api/')]}"
        # Not 404, which clients take for a missing model that they should pull.
        raise ApiError(405, told, headers={"Allow": ""})

    found = [
        ("/", there, ["HEAD"]),
        ("/api/version", version, ["GET"]),
        ("/api/tags", tags, ["GET"]),
        ("/api/ps", running, ["GET"]),
        ("/api/show", show, ["POST"]),
        ("/api/chat", answer, ["POST"]),
        ("/api/generate", answer, ["POST"]),
        *((f"/api/{name}", not_here, ["POST", "DELETE"]) for name in NOT_HERE),
    ]
    return [
        Route(path, shaped(endpoint, refused), methods=methods) for path, endpoint, methods in found
    ]


def as_line(event: Any) -> Event:
    """Return an object as a line."""
    return json.dumps(event).encode() + b"\n"


def _error(error: ApiError) -> dict[str, str]:
    return {"error": error.message}


def refused(error: ApiError) -> Response:
    """Return the answer to a request that is not served."""
    return JSONResponse(_error(error), error.status, error.headers)


# -- models --------------------------------------------------------------------------------


def _find(engine: Engine, body: Mapping[str, Any]) -> NamedModel:
    model = body.get("model")
    return find(engine, body.get("name") if model in (None, "") else model)  # "name" is older


def _listed(engine: Engine, model: NamedModel) -> dict[str, Any]:
    """Return a model as lists have it; of one that never was loaded, little is known."""
    name = model.id if model.part else f"{model.id}:latest"
    facts = engine.facts(model.recipe)
    made_of = f"{engine.served(model.recipe).toml}\n{model.part}"
    return {
        "name": name,
        "model": name,
        "modified_at": _STARTED,
        "size": file_of(facts, model)["n_bytes"] if facts else 0,
        "digest": sha256(made_of.encode()).hexdigest(),
        "details": _details(facts, model),
    }


def _details(facts: Mapping[str, Any] | None, model: NamedModel) -> dict[str, Any]:
    file = file_of(facts, model) if facts else {}
    family = file.get("architecture", "")
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": f"{file['n_parameters'] / 1e9:.1f}B" if file else "",
        "quantization_level": str(file.get("quantisation", "")),
    }


def _running(engine: Engine, model: NamedModel) -> dict[str, Any]:
    facts = engine.facts(model.recipe)
    assert facts is not None  # it is loaded
    return {**_listed(engine, model), "size_vram": 0, "context_length": facts["n_ctx"]}


def _shown(engine: Engine, model: NamedModel, facts: Mapping[str, Any]) -> dict[str, Any]:
    file, form = file_of(facts, model), reply_form(engine, model)
    family = file["architecture"]
    return {
        "modelfile": f"# {engine.served(model.recipe).description or model.id}\n",
        "parameters": "",
        "template": facts["templates"][role_of(facts["templates"], model)] or "",
        "license": "",
        "modified_at": _STARTED,
        "details": _details(facts, model),
        "model_info": {
            "general.architecture": family,
            "general.basename": model.id,
            "general.parameter_count": file["n_parameters"],
            f"{family}.context_length": facts["n_ctx"],
        },
        "capabilities": [
            "completion",
            *(["tools"] if form.tool_calls else []),
            *(["thinking"] if form.reasoning else []),
        ],
    }


# -- requests ------------------------------------------------------------------------------


async def ask(body: Mapping[str, Any], engine: Engine, model: NamedModel) -> Ask:
    """Return what the body of a chat asks for.

    Raises:
        ApiError: a field is missing or wrong. UnservedError: the model cannot be loaded.
    """
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
    known = {name: value for name, value in options.items() if name in OPTIONS}
    fields.ignored += [f"options.{name}" for name in options if name not in known]
    _check_context(known.pop("num_ctx", None), facts["n_ctx"], fields)
    common = {name: body[name] for name in (*COMMON, "stop") if name in body}
    asked_for |= {**common, **known, "response_format": _response_format(fields)}
    for theirs, ours in NAMES.items():
        if theirs in asked_for:
            asked_for[ours] = asked_for.pop(theirs)
    length = asked_for.get("max_tokens")
    if length is None or (isinstance(length, int) and length < 0):
        asked_for["max_tokens"] = -1
    if "messages" in asked_for and "think" in fields:
        on = body["think"] in ("low", "medium", "high") or fields.flag("think")
        asked_for["chat_template_kwargs"] = openai_chat.thinking(facts, on)
    dialect = openai_chat if "messages" in asked_for else openai_completions
    with said_as({theirs: ours for theirs, ours in NAMES.items() if theirs in options}):
        asked = await dialect.ask(asked_for, engine, model)
    return replace(asked, ignored=(*fields.ignored, *asked.ignored))


def _check_context(wanted: Any, n_ctx: int, fields: Fields) -> None:
    """Note that `num_ctx` changes nothing; refuse one that promises more than there is."""
    if wanted is None:
        return
    if type(wanted) is not int or wanted > n_ctx:
        told = f"num_ctx is {wanted!r:.40}; the context has {n_ctx} tokens, set when it is loaded"
        raise ApiError(400, told, param="num_ctx")
    fields.ignored.append("options.num_ctx")


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


class OllamaWriter:
    """Writes chunks as Ollama's lines.

    Args:
        model: as the client named it.
        is_chat: whether the text stands in a message.
    """

    def __init__(self, model: str, *, is_chat: bool) -> None:
        self._model, self._is_chat = model, is_chat
        self._begun = time.perf_counter_ns()
        self._loaded = self._begun

    async def events(self, generating: Generating) -> AsyncIterator[dict[str, Any]]:
        """Yield the lines of a stream; a call of a tool comes when it is whole."""
        self._loaded = time.perf_counter_ns()
        calls = openai_chat.Message()
        async for chunk in generating.chunks():
            calls.take(tuple(piece for piece in chunk.pieces if _is_of_call(piece)))
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
        message = openai_chat.Message()
        end: dict[str, Any] = {}
        async for chunk in generating.chunks():
            message.take(chunk.pieces)
            if chunk.done:
                end = self._end(chunk.done)
        line = self._line(message.content, message.reasoning, message.tool_calls, done=True)
        return {**line, **end}

    def loaded(self) -> dict[str, Any]:
        """Return the answer to a request that only loads a model."""
        return {**self._line("", "", done=True), "done_reason": "load"}

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
