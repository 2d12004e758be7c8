"""What the engine's process could not do, as an answer to a client."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ..engine.request import Request
from ..errors import EdgeEftError
from .api_error import ApiError

# Of what is not a fault of ours; all else is a 500.
_STATUS = {
    "Busy": 429,
    "EngineDown": 503,
    "EngineStopped": 503,
    "GrammarError": 400,
    "NoTokenError": 400,
    "NotEnoughMemoryError": 503,
    "PromptError": 400,
    "RequestError": 400,
    "ContextLengthError": 400,
}
_CODES = {
    "Busy": "queue_full",
    "ContextLengthError": "context_length_exceeded",
    "EngineDied": "engine_died",
    "EngineDown": "engine_down",
}


# What the engine complains of by its name, and in other words.
_FIELDS = {field.name: field.name for field in dataclasses.fields(Request)}
_FIELDS |= {"alpha": "alpha", "beta": "beta", "mix": "mix", "prompt_logprobs": "logprobs"}
_BEGINNINGS = {"the prompt ": "prompt", "message ": "prompt", "no delta is named ": "mix"}


class UnservedError(ApiError):
    """The engine refused a request, or could not finish it.

    Attributes:
        cause: the class of `edge_eft.errors`, or what happened to the engine: "Busy", "EngineDied",
            "EngineDown", "EngineStopped", or "Defect".
    """

    def __init__(self, cause: str, message: str, numbers: dict[str, int] | None = None) -> None:
        status = _STATUS.get(cause, 500)
        super().__init__(
            status,
            message,
            param=_field_of(message) if status == 400 else None,
            code=_CODES.get(cause),
            headers={"Retry-After": "1"} if status in (429, 503) else None,
            more=numbers,
        )
        self.cause = cause


def failure_of(event: Mapping[str, Any]) -> UnservedError | None:
    """Return what an event of the engine's process tells of as failed, None if nothing is."""
    if event["event"] not in ("error", "failed"):
        return None
    known = {"event", "id", "name", "kind", "message"}
    numbers = {key: value for key, value in event.items() if key not in known}
    return UnservedError(event["kind"], event["message"], numbers)


def _field_of(message: str) -> str | None:
    """Return the field that a message of the engine is about, if it begins with one."""
    for beginning, name in _BEGINNINGS.items():
        if message.startswith(beginning):
            return name
    return _FIELDS.get(message.partition(" ")[0].strip(",:"))


def refused(error: EdgeEftError, fields: Iterable[str] = ()) -> ApiError:
    """Return the answer to a body that is wrong; its `param` is what the message begins with."""
    message = str(error)
    param = next((name for name in fields if message.startswith(name)), None)
    return ApiError(400, message, param=param)
