"""llama-server's own routes: completion, tokens, templates, and what the server is doing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.routing import BaseRoute, Route

from ..engine.request import Request as EngineRequest
from . import llama_server, openai_chat
from .answers import Answering
from .engine import Engine
from .fields import Fields
from .openai_words import FINGERPRINT
from .served import NamedModel, facts_of, role_of
from .tokens import check_parts, joined_tokens

TOKENIZE = ("content", "add_special", "parse_special", "with_pieces", "model")
DETOKENIZE = ("tokens", "model")


def routes(engine: Engine, answering: Answering) -> list[BaseRoute]:
    """Return the routes. `/completions` is OpenAI's here."""
    complete = answering.endpoint("cmpl-", llama_server.ask, llama_server.LlamaWriter)
    return [
        Route("/completion", complete, methods=["POST"]),
        Route("/tokenize", answering.telling(_tokenize), methods=["POST"]),
        Route("/detokenize", answering.telling(_detokenize), methods=["POST"]),
        Route("/apply-template", answering.telling(_prompt), methods=["POST"]),
        Route("/props", answering.telling(_props), methods=["GET"]),
        Route("/slots", answering.telling(_slots), methods=["GET"]),
    ]


async def _tokenize(engine: Engine, model: NamedModel, body: Mapping[str, Any]) -> dict[str, Any]:
    fields = Fields(body, TOKENIZE)
    content = fields.get("content", str | list, "a text, or a list of texts and token ids", "")
    with_pieces = fields.flag("with_pieces")
    tokens = await joined_tokens(
        engine,
        model,
        [content] if isinstance(content, str) else content,
        "content",
        add_special=fields.flag("add_special"),
        parse_special=fields.get("parse_special", bool, "true or false", True),
        with_pieces=with_pieces,
    )
    if with_pieces:
        tokens = [{"id": token, "piece": _piece(piece)} for token, piece in tokens]
    return {"tokens": tokens}


def _piece(latin_1: str) -> str | list[int]:
    """Return what a token prints: a text, or bytes where it is only a part of a character."""
    data = latin_1.encode("latin-1")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


async def _detokenize(engine: Engine, model: NamedModel, body: Mapping[str, Any]) -> dict[str, Any]:
    fields = Fields(body, DETOKENIZE)
    tokens = fields.get("tokens", list, "a list of token ids", [])
    check_parts(tokens, "tokens", await engine.ready(model.recipe), texts=False)
    return {"content": await engine.ask(model.recipe, "detokenize", tokens=tokens)}


async def _prompt(engine: Engine, model: NamedModel, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the prompt that messages become for the tuned model, or the one that is named."""
    asked = await openai_chat.ask(body, engine, model)
    request = asked.requests[0].to_dict()
    prompts = await engine.ask(model.recipe, "prompts", request=request)
    return {"prompt": prompts[role_of(prompts, model)]["text"]}


async def _props(engine: Engine, model: NamedModel, _: Mapping[str, Any]) -> dict[str, Any]:
    facts = await facts_of(engine, model)
    defaults = EngineRequest("", max_tokens=facts["n_ctx"])
    params = llama_server.settings(defaults.to_dict()) | {"seed": -1, "n_predict": -1}
    return {
        "default_generation_settings": {
            **_slot(0, facts["n_ctx"]),
            "params": {**params, "max_tokens": -1, "stop": [], "grammar": ""},
        },
        "total_slots": facts["n_slots"],
        "model_alias": model.id,
        "model_path": facts["files"]["base"]["name"],
        "modalities": {"vision": False, "audio": False},
        "chat_template": facts["templates"][role_of(facts["templates"], model)],
        "bos_token": facts["bos"],
        "eos_token": facts["eos"],
        "build_info": FINGERPRINT,
        "is_sleeping": not engine.is_loaded(model.recipe),
    }


def _slot(index: int, n_ctx: int) -> dict[str, Any]:
    return {
        "id": index,
        "id_task": -1,
        "n_ctx": n_ctx,
        "speculative": True,
        "is_processing": False,
    }


async def _slots(engine: Engine, model: NamedModel, _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what each slot does: counts and dials.

    llama-server shows prompts here; ours are other people's, so none of their words is.
    """
    facts = await facts_of(engine, model)
    slots = [_slot(i, facts["n_ctx"]) for i in range(facts["n_slots"])]
    for slot, reply in zip(slots, engine.replies(model.recipe), strict=False):
        left = reply.request["max_tokens"] - reply.n_decoded
        about = {"has_next_token": True, "n_remain": left, "n_decoded": reply.n_decoded}
        params = llama_server.settings(reply.request)
        task = int(reply.id.removeprefix("r"))
        slot |= {"id_task": task, "is_processing": True, "params": params, "next_token": about}
    return slots
