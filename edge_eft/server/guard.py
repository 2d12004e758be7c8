"""Who is served: the gate before every route, as ASGI middleware.

A web page anywhere can make its reader's browser send requests to this machine, and a name that an
attacker owns can be made to lead here (DNS rebinding). So the Host has to be one of ours, a foreign
Origin is not served, and what changes state needs a content type that no page can send unasked.
Keys are compared in constant time. Nothing of a refused request reaches a route, its body included.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import re
import shlex
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from starlette.responses import Response

from .api_error import ApiError, as_api_error, openai_refusal, place_of, shutting_down
from .body import MAX_BODY, ClientGoneError, Message, Receive, read_body, too_large

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@*,\\]+")
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9_, -]{1,4000}")
_SAFE = ("GET", "HEAD", "OPTIONS")


def host_name(host: str) -> str | None:
    """Return the name or address in a Host header, without its port; None if it is malformed."""
    found = _HOST.fullmatch(host.lower())
    return _plain(found[1]) if found else None


def origin_of(word: str) -> str | None:
    """Return what `--cors` takes as browsers write it, "*" for all; None if it is no origin."""
    word = word.lower()
    return word if word == "*" or _ORIGIN.fullmatch(word) else None


def is_loopback(host: str) -> bool:
    """Return whether a plain host name or address leads to this machine and nowhere else."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_open(path: str, open_paths: Collection[str]) -> bool:
    """Return whether a path is one of these, or below one that ends in a slash, as /page/ does."""
    return path in open_paths or path.startswith(
        tuple(one for one in open_paths if one.endswith("/") and one != "/")
    )


def _plain(host: str) -> str | None:
    """Return a host without brackets, an address in its shortest form; None if it is none."""
    literal = host.startswith("[")
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None if literal else host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


class Guard:
    """Refuses what is not to be served, and sees to it that every failure has a status.

    Args:
        app: what is guarded.
        hosts: names and addresses that are ours, besides those that always are.
        origins: origins of web pages that may use the server; "*": all.
        keys: one of them is asked for; empty: none is.
        open_paths: what is served without a key, to GET; one such as /page/ is all that is below.
        max_body: bytes.
        refused: path, error → the response, in the shape that clients of the path expect.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        keys: Collection[str] = (),
        open_paths: Collection[str] = (),
        max_body: int = MAX_BODY,
        refused: Callable[[str, ApiError], App] = lambda _, error: openai_refusal(error),
    ) -> None:
        self._app, self._refused = app, refused
        always = ("host.docker.internal", socket.gethostname().lower())
        self._hosts = {*always, *(_plain(host.lower()) for host in hosts)} - {None, ""}
        self._origins = frozenset(origins)
        self._keys = [_digest(key.encode()) for key in keys]
        self._open_paths = tuple(open_paths)
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            host = self._checked_host(scope)
            answer.more += self._checked_origin(scope, host)
            if self._is_preflight(scope):
                await _preflight(scope)(scope, receive, answer.send)
                return
            self._check_key(scope)
            body = await self._checked_body(scope, receive)
            await self._app(scope, _again(body, receive), answer.send)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            if not answer.started:
                await self._refused(scope["path"], shutting_down())(scope, receive, answer.send)
            raise
        except Exception as error:
            told = as_api_error(error)
            if not isinstance(error, ApiError):
                log.error("a request to %s failed: %s", scope["path"], place_of(error))
            if not answer.started:
                await self._refused(scope["path"], told)(scope, receive, answer.send)

    def _checked_host(self, scope: Scope) -> str:
        """Return the Host header of a request if it names us, else raise ApiError."""
        values = _values(scope, b"host")
        if len(values) != 1:
            seen = "several Host headers" if values else "no Host header"
            raise ApiError(403, f"the request has {seen}; send one", code="host_not_allowed")
        value = values[0].lower()
        host = host_name(value)
        here = _plain(str((scope.get("server") or ("",))[0]))  # the address that was connected to
        if host is None:
            raise ApiError(403, f"{value!r:.80} is not a host", code="host_not_allowed")
        if not (is_loopback(host) or host in self._hosts or host == here):
            raise ApiError(
                403,
                f"the host {host!r:.80} is not one of this server's; use localhost, or start it "
                f"with --allow-host {host:.80}",
                code="host_not_allowed",
            )
        return value

    def _checked_origin(self, scope: Scope, host: str) -> list[tuple[bytes, bytes]]:
        """Return the headers for the page that asks, none for others; raise ApiError if foreign."""
        values = [value.lower() for value in _values(scope, b"origin")]
        if not values:
            return []
        origin = values[0]
        if len(values) == 1 and _ORIGIN.fullmatch(origin):
            if origin in self._origins or "*" in self._origins:
                raw = next(value for name, value in scope["headers"] if name == b"origin")
                exposed = (b"access-control-expose-headers", b"*")
                return [(b"access-control-allow-origin", raw), (b"vary", b"Origin"), exposed]
            if origin in (f"http://{host}", f"https://{host}"):
                return []
            its = shlex.quote(origin[:300])
        else:
            its = "and its origin, which it has if it comes from a web server"
        raise ApiError(
            403,
            f"pages of {', '.join(values)!r:.80} may not use this server; if one is yours, start "
            f"it with --cors {its}",
            code="origin_not_allowed",
        )

    def _is_preflight(self, scope: Scope) -> bool:
        asks = _values(scope, b"access-control-request-method")
        return scope["method"] == "OPTIONS" and bool(asks and self._origins)

    def _check_key(self, scope: Scope) -> None:
        """Raise ApiError if a key is needed and none of ours is given."""
        is_get = scope["method"] in ("GET", "HEAD")
        if not self._keys or (is_get and is_open(scope["path"], self._open_paths)):
            return
        given = [value for name, value in scope["headers"] if name == b"x-api-key"]
        for name, value in scope["headers"]:
            scheme, _, token = value.partition(b" ")
            if name == b"authorization" and scheme.lower() == b"bearer":
                given.append(token.strip())
        digests = [_digest(key) for key in given]
        matches = [hmac.compare_digest(one, ours) for one in digests for ours in self._keys]
        if not any(matches):
            seen = "the API key is not this server's" if given else "an API key is needed"
            raise ApiError(
                401,
                f"{seen}; send it as 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _checked_body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body of a request that may change something, else none is read."""
        if scope["method"] in _SAFE:
            return b""
        kinds = _values(scope, b"content-type")
        media_type = kinds[0].partition(";")[0].strip().lower() if len(kinds) == 1 else ""
        if media_type != "application/json":
            seen = f"Content-Type is {kinds[0]!r:.80}" if kinds else "there is no Content-Type"
            raise ApiError(
                415,
                f"{seen}; send the header 'Content-Type: application/json' (curl: "
                "-H 'Content-Type: application/json')",
                code="unsupported_media_type",
            )
        lengths = _values(scope, b"content-length")
        if any(length.isdigit() and int(length[:20]) > self._max_body for length in lengths):
            raise too_large(self._max_body)
        return await read_body(receive, self._max_body)


class _Answer:
    """The way to the client: adds our headers, and knows whether a response has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.more: list[tuple[bytes, bytes]] = [(b"x-content-type-options", b"nosniff")]

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": [*message.get("headers", ()), *self.more]}
        await self._send(message)


def _preflight(scope: Scope) -> Response:
    """Return the answer to a page that asks whether it may ask."""
    headers = {
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-max-age": "600",
        "content-length": "0",
    }
    for name, value in scope["headers"]:
        if name == b"access-control-request-headers" and _HEADER_NAMES.fullmatch(value):
            headers["access-control-allow-headers"] = value.decode()
        if (name, value) == (b"access-control-request-private-network", b"true"):
            headers["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=headers)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for known, value in scope["headers"] if known == name]


def _digest(key: bytes) -> bytes:
    """Return a hash, by which keys are compared: neither content nor length takes its time."""
    return hashlib.sha256(key).digest()


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body, and then nothing until the client disconnects."""
    given = False

    async def received() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        while (message := await receive())["type"] != "http.disconnect":
            pass
        return message

    return received
