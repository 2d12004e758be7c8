"""OpenAI's routes, with and without /v1, and ours beside them: the dials of a running request."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..errors import EdgeEftError
from ..logits.weights import Weights
from . import openai_chat, openai_completions
from .answers import Answering, body_of, not_served
from .api_error import ApiError
from .engine import Engine
from .failure import refused
from .fields import WEIGHTS, Fields
from .openai_words import NO_EMBEDDINGS
from .reply import Reply
from .served import NamedModel, file_of, find, models

_STARTED = int(time.time())
CONTROL = ("id", "action", *WEIGHTS, "only")


def routes(engine: Engine, answering: Answering) -> list[BaseRoute]:
    """Return the routes."""

    async def list_models(request: Request) -> Response:
        return JSONResponse(
            {"object": "list", "data": [_about(engine, model) for model in models(engine)]}
        )

    async def one_model(request: Request) -> Response:
        return JSONResponse(_about(engine, find(engine, request.path_params["id"])))

    async def control(request: Request) -> Response:
        return JSONResponse(await _control(engine, await body_of(request)))

    chat = answering.endpoint("chatcmpl-", openai_chat.ask, openai_chat.ChatWriter)
    complete = answering.endpoint(
        "cmpl-", openai_completions.ask, openai_completions.CompletionWriter
    )
    found = [
        ("/models", list_models, "GET"),
        ("/models/{id:path}", one_model, "GET"),
        ("/chat/completions", chat, "POST"),
        ("/chat/completions/control", control, "POST"),
        ("/completions", complete, "POST"),
        ("/embeddings", not_served(NO_EMBEDDINGS), "POST"),
    ]
    return [
        Route(prefix + path, endpoint, methods=[method])
        for path, endpoint, method in found
        for prefix in ("/v1", "")
    ]


def _about(engine: Engine, model: NamedModel) -> dict[str, Any]:
    recipe, facts = engine.served(model.recipe), engine.facts(model.recipe)
    about: dict[str, Any] = {
        "id": model.id,
        "object": "model",
        "created": _STARTED,
        "owned_by": "edge_eft",
    }
    meta: dict[str, Any] = {
        "description": recipe.description,
        "loaded": engine.is_loaded(model.recipe),
    }
    if facts:
        file = file_of(facts, model)
        meta |= {
            "n_vocab": facts["n_vocab"],
            "n_ctx": facts["n_ctx"],
            "n_ctx_train": facts["n_ctx_train"],
            "n_params": file["n_parameters"],
            "size": file["n_bytes"],
            "deltas": facts["deltas"],
            "memory": facts["memory"],
        }
    return about | {"meta": meta}


async def _control(engine: Engine, body: Mapping[str, Any]) -> dict[str, Any]:
    """Stop a request in work, or turn its dials: {"id", "action": "stop" | "set_weights", …}."""
    fields = Fields(body, CONTROL)
    id = fields.get("id", str, "the id of an answer's first chunk")
    action = fields.get("action", str, "stop or set_weights")
    if action not in ("stop", "set_weights"):
        raise fields.wrong("action", "it must be stop or set_weights")
    if not id:
        raise ApiError(400, "id is missing; give that of an answer's first chunk", param="id")
    replies = engine.find(id)
    if not replies:
        raise ApiError(
            404, f"no answer {id!r:.80} is in work; it has ended", code="not_found", param="id"
        )
    if action == "stop":
        for reply in replies:
            reply.cancel()
        return {"id": id, "action": action, "success": True}
    try:
        weights = Weights.from_dict(fields.dials("only"))
    except EdgeEftError as error:
        raise refused(error, (*WEIGHTS, "only")) from None
    told = weights.to_dict()
    n_before = {
        reply: await engine.ask(reply.recipe, "set_weights", request=reply.id, weights=told)
        for reply in replies
    }
    facts = engine.facts(replies[0].recipe)
    assert facts is not None  # it is in work
    return {
        "id": id,
        "action": action,
        "success": True,
        "weights": _in_full(weights, facts["deltas"]),
        "from_tokens": [_first_of(n_before.get(one), one) for one in replies[0].choices],
    }


def _first_of(n_before: int | None, reply: Reply) -> int:
    """Return how many tokens of a reply had been chosen: all, if it has ended."""
    return reply.n_decoded if n_before is None else n_before


def _in_full(weights: Weights, deltas: Mapping[str, float]) -> dict[str, Any]:
    """Return the dials of these weights, with those that were left out.

    Args:
        deltas: the recipe's, name → weight.
    """
    if weights.role is not None:
        return {"only": weights.role}
    mix = deltas if weights.mix is None else dict.fromkeys(deltas, 0.0) | dict(weights.mix)
    dial = {"alpha": weights.alpha} if weights.beta is None else {"beta": weights.beta}
    return {**dial, "mix": dict(mix)}
