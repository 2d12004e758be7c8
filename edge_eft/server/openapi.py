"""/openapi.json: what is served, in OpenAPI 3.1.

The paths are the application's own and the names of fields the dialects', so that neither is
listed twice; here is what is said of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib import metadata
from typing import Any, NamedTuple

from starlette.routing import BaseRoute, Route

from . import ollama, page
from .body_schemas import BODIES, TEXT, record, typed
from .guard import is_open
from .openai_words import NO_EMBEDDINGS

_STATUSES = {
    400: "A field is missing or wrong; the message names it.",
    401: "A key is needed.",
    403: "The Host or the Origin is not one of this server's.",
    404: "There is none of that name.",
    405: "This is not done here.",
    413: "The body is too large.",
    415: "The body does not come as application/json.",
    429: "The queue is full; Retry-After says when to ask again.",
    500: "The engine failed.",
    503: "The models are being loaded, or the engine is down.",
}
_OF_ENGINE = (404, 500, 503)
_MAYBE = typed("string|null")
_ERROR = record("message type", message=TEXT, type=TEXT, param=_MAYBE, code=_MAYBE)
ERRORS = {
    "Error": record("error", error=_ERROR),
    "MessageError": record("type error request_id", error=record("type message"), request_id=TEXT),
    "OllamaError": record("error", error=TEXT),
}

# Which of them is used below a path; elsewhere the first.
_SHAPES = {"/v1/messages": "MessageError", "/api/": "OllamaError"}


class Operation(NamedTuple):
    """What is done at a path: its body in BODIES, and what comes back."""

    about: str
    body: str = ""
    kinds: tuple[str, ...] = ("application/json",)  # media types
    fails: tuple[int, ...] = ()  # statuses, besides the gate's
    query: str = ""


def _asks(about: str, body: str, stream: str = "") -> Operation:
    kinds = ("application/json", *([stream] if stream else []))
    return Operation(about, body, kinds, (400, *_OF_ENGINE, 429))


_EVENTS, _LINES = "text/event-stream", "application/x-ndjson"
OPERATIONS = {  # by the path without /v1
    "/health": Operation("Whether requests are taken.", fails=(503,)),
    "/metrics": Operation("Counts, as Prometheus reads them.", kinds=(page.PLAIN,)),
    "/openapi.json": Operation("This document."),
    "/models": Operation("All models: recipes, and their parts."),
    "/models/{id}": Operation("One model.", fails=(404,)),
    "/chat/completions": _asks("OpenAI's chat.", "Chat", _EVENTS),
    "/chat/completions/control": _asks("Stop an answer, or turn its dials.", "Control"),
    "/completions": _asks("OpenAI's completions.", "Completion", _EVENTS),
    "/responses": _asks("OpenAI's responses, without a memory.", "Response", _EVENTS),
    "/messages": _asks("Anthropic's messages.", "Message", _EVENTS),
    "/messages/count_tokens": _asks("How long a prompt is.", "Message"),
    "/completion": _asks("llama-server's completion.", "LlamaCompletion", _EVENTS),
    "/tokenize": _asks("A text's tokens.", "Tokenize"),
    "/detokenize": _asks("The text of tokens.", "Detokenize"),
    "/apply-template": _asks("The prompt that messages become.", "Chat"),
    "/props": Operation("What a model is.", fails=_OF_ENGINE, query="model"),
    "/slots": Operation("What a model's slots do.", fails=_OF_ENGINE, query="model"),
    "/embeddings": Operation(f"Not done here: {NO_EMBEDDINGS}.", fails=(405,)),
    "/": Operation(
        "The page for browsers, and in words what this is.", kinds=("text/html", page.PLAIN)
    ),
    "/page/{file}": Operation(
        "A file of the page.", kinds=(*page.KINDS.values(), page.PLAIN), fails=(404,)
    ),
    "/api/version": Operation("The Ollama that this is like."),
    "/api/tags": Operation("All models."),
    "/api/ps": Operation("The models that are loaded."),
    "/api/show": _asks("What a model is.", "OllamaShow"),
    "/api/chat": _asks("Ollama's chat.", "OllamaChat", _LINES),
    "/api/generate": _asks("Ollama's generate.", "OllamaGenerate", _LINES),
    **{
        f"/api/{name}": Operation(f"Not done here: {why}.", "", (), (405,))
        for name, why in ollama.NOT_HERE.items()
    },
}


def error_shape(path: str) -> str:
    """Return the name in ERRORS of what a path answers where it refuses."""
    return next((name for above, name in _SHAPES.items() if path.startswith(above)), "Error")


def document(
    routes: Iterable[BaseRoute], open_paths: Collection[str], *, has_keys: bool
) -> dict[str, Any]:
    """Return the document.

    Args:
        routes: of the application.
        open_paths: what is served without a key, as the guard takes them.
        has_keys: whether one is asked for elsewhere.
    """
    paths: dict[str, Any] = {}
    for route in routes:
        assert isinstance(route, Route)
        methods = route.methods or set()
        for method in sorted(methods - {"HEAD"} or methods):
            operation = _operation(route, method.lower())
            if is_open(route.path, open_paths):
                operation["security"] = []
            paths.setdefault(route.path_format, {})[method.lower()] = operation
    keys = {
        "Bearer": {"type": "http", "scheme": "bearer"},
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    }
    bodies = {name: body.schema() for name, body in BODIES.items()}
    for name in ("OllamaChat", "OllamaGenerate"):
        bodies[name]["properties"]["options"] = _ref("schemas", "OllamaOptions")
    failures = {
        f"{shape}{status}": {"description": about, **_json(shape)}
        for shape in ERRORS
        for status, about in _STATUSES.items()
    }
    schemas = {"schemas": bodies | ERRORS, "responses": failures, "securitySchemes": keys}
    return {
        "openapi": "3.1.0",
        "info": {"title": "edge-eft", "version": metadata.version("edge-eft")},
        "paths": paths,
        "components": schemas,
        "security": [{name: []} for name in keys] if has_keys else [],
    }


def _operation(route: Route, method: str) -> dict[str, Any]:
    """Return what is said of one method of a route."""
    about = OPERATIONS[route.path_format.removeprefix("/v1")]
    places = [(name, "path") for name in route.param_convertors]
    places += [(name, "query") for name in about.query.split()]
    shape = error_shape(route.path)
    operation: dict[str, Any] = {
        "operationId": f"{method} {route.path_format}",
        "summary": about.about,
        "parameters": [
            {"name": name, "in": where, "required": where == "path", "schema": TEXT}
            for name, where in places
        ],
        "responses": {} if about.fails == (405,) else {"200": _answer(about)},
    }
    gate = (401, 403) if method in ("get", "head") else (401, 403, 413, 415)
    for status in sorted({*gate, *about.fails}):
        operation["responses"][str(status)] = _ref("responses", f"{shape}{status}")
    if about.body:
        operation["requestBody"] = {"required": True, **_json(about.body)}
    return operation


def _answer(about: Operation) -> dict[str, Any]:
    ignored = {"description": "Fields that were not read.", "schema": TEXT}
    headers = {"X-Ignored-Fields": ignored} if about.body else {}
    content: dict[str, Any] = {kind: {} for kind in about.kinds}
    return {"description": "The answer.", "headers": headers, "content": content}


def _json(schema: str) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": _ref("schemas", schema)}}}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}
