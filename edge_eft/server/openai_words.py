"""Parts of OpenAI's answers that its interfaces share."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from ..engine.reply import Step
from .explained import finite, text_of
from .fields import Fields
from .generation import Done

# Clients of llama-server know it by the "b" of its build numbers.
FINGERPRINT = f"b{metadata.version('edge-eft')}-edge-eft"

NO_EMBEDDINGS = "these models make no embeddings"


def base(id: str, kind: str, model: str) -> dict[str, Any]:
    """Return what every answer, and every object of a stream, begins with."""
    return {
        "id": id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
    }


def merged_usage(done: Mapping[int, Done], n: int = 1) -> dict[str, Any]:
    """Return the usage of an answer: every prompt once, and the replies of all choices.

    Args:
        done: number of a choice → how it ended.
        n: choices of each prompt; they stand one after another.
    """
    first = [one.generation for i, one in sorted(done.items()) if i % n == 0]
    prompt = sum(one.prompt_tokens for one in first)
    cached = sum(one.cached_tokens for one in first)
    completion = sum(one.n_predicted for one in done.values())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def check_stream_options(fields: Fields) -> None:
    """Raise ApiError if `stream_options`, of which `wants_usage` is a part, is something else."""
    fields.get("stream_options", dict, 'an object such as {"include_usage": true}')


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Return whether a stream is to end with its usage."""
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def _logprob(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text_of(piece), "logprob": finite(logprob), "bytes": list(piece)}


def token_logprob(step: Step, n: int) -> dict[str, Any]:
    """Return a chat's entry on one token: its log-probability, and the n likeliest ones'."""
    top = [_logprob(one.piece, one.logprob) for one in step.top_logprobs[:n]]
    return _logprob(step.piece, step.logprob) | {"top_logprobs": top}


def parsed_arguments(arguments: str) -> dict[str, Any]:
    """Return what a tool is called with, as an object.

    What is not an object is handed back under a name, as Anthropic has it.
    """
    try:
        parsed = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {"INVALID_JSON": arguments}
