"""The body of a request: bytes up to a limit, and the JSON object in them.

What passes is data that the rest of the server may walk, encode and write again: finite numbers,
whole characters, and no deeper than a recursion goes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .api_error import ApiError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

MAX_BODY = 4 << 20  # bytes
_MAX_DEPTH = 100  # of lists and objects in each other
_MAX_PARTS = 100_000  # lists and objects; a million take a second, in which nobody is served
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')


class ClientGoneError(Exception):
    """The client went away before its request was there."""


async def read_body(receive: Receive, limit: int = MAX_BODY) -> bytes:
    """Return the whole body of a request.

    Raises:
        ApiError: 413, it is larger than `limit` bytes.
        ClientGoneError: the connection ended before it.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large(limit)
        more = message.get("more_body", False)
    return bytes(body)


def too_large(limit: int) -> ApiError:
    """Return the refusal of a body of more than `limit` bytes."""
    return ApiError(413, f"the body is larger than {limit:,} bytes; send less", code="too_large")


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is.

    Raises ApiError, 400, if it is not UTF-8, not JSON, nested deeper than 100 levels, of more than
    100,000 lists and objects, holds a number that is not finite or half a character, or is no
    object.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8 (byte {error.start})") from None
    if not text.strip():
        raise _bad("the body is empty")
    if _n_parts(text) > _MAX_PARTS and _n_parts(_STRING.sub("", text)) > _MAX_PARTS:
        raise _bad(f"the body has more than {_MAX_PARTS:,} lists and objects")
    try:
        content = json.loads(text, parse_constant=_finite, parse_float=_finite)
        if _n_parts(text) > _MAX_DEPTH:
            _check_depth(content)
        if "\\ud" in text.lower():
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _bad("a text in the body has half a surrogate pair") from None
    except RecursionError:
        raise _bad(f"the body is nested deeper than {_MAX_DEPTH} levels") from None
    except ValueError as error:  # of JSON, or an integer of thousands of digits
        raise _bad(f"the body is not valid JSON ({error!s:.200})") from None
    if not isinstance(content, dict):
        raise _bad(f"the body is a JSON {type(content).__name__}")
    return content


def _bad(seen: str) -> ApiError:
    return ApiError(400, f"{seen}; send a JSON object", code="invalid_json")


def _n_parts(text: str) -> int:
    return text.count("[") + text.count("{")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text:.20} is not a finite number")
    return value


def _check_depth(content: Any) -> None:
    """Raise RecursionError if lists and objects are too deep in each other."""
    level = [content]
    for _ in range(_MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [part for each in inner for part in each if isinstance(part, dict | list)]
        if not level:
            return
    raise RecursionError
