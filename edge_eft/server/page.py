"""The page: the files of `page/`, and which of two things `/` is.

A browser is given the page; whoever else asks is told what is here, as Ollama does it, whose
clients look for that. The files are read once, and what is not among them is nowhere below
`/page/`, whatever a path says. They are for anybody, since a browser asks for them without a key;
what the page itself asks for needs the key as all else does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from .ollama import HERE

FOLDER = Path(__file__).with_suffix("")
BELOW = "/page/"  # the files' paths
# By the end of a file's name; what has another, as a licence, is plain text.
KINDS = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
PLAIN = "text/plain"

# Scripts and styles are files of this server's, and nothing is fetched from, shown in or sent to
# anywhere else. Markup is made by DOMPurify alone, under the policy that it registers by that name.
_CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
# What the page does not use; to write to the clipboard, by buttons that copy, stays.
_UNUSED = (
    *("accelerometer", "autoplay", "camera", "clipboard-read", "display-capture"),
    *("encrypted-media", "fullscreen", "geolocation", "gyroscope", "hid", "idle-detection"),
    *("local-fonts", "magnetometer", "microphone", "midi", "payment", "picture-in-picture"),
    *("publickey-credentials-get", "screen-wake-lock", "serial", "sync-xhr", "usb"),
    *("xr-spatial-tracking",),
)
HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for again: an update shows at once
    "Content-Security-Policy": _CONTENT,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{name}=()" for name in _UNUSED),
    "Referrer-Policy": "no-referrer",
}


class _File(NamedTuple):
    """A file of the page. `tag` is of its content: the ETag."""

    content: bytes
    kind: str
    tag: str


def routes(folder: Path = FOLDER) -> list[BaseRoute]:
    """Return the routes of `/` and of the files in a folder, which are read here."""
    files = _files(folder)
    index = files["index.html"]

    async def front(request: Request) -> Response:
        vary = {"Vary": "Accept"}
        if _takes_html(request):
            return _answer(request, index, vary)
        return PlainTextResponse(HERE, headers=vary)

    async def one_file(request: Request) -> Response:
        if (found := files.get(request.path_params["file"])) is None:
            raise HTTPException(404)
        return _answer(request, found, {})

    return [
        Route("/", front, methods=["GET"]),
        Route(f"{BELOW}{{file:path}}", one_file, methods=["GET"]),
    ]


def _files(folder: Path) -> dict[str, _File]:
    """Return the files of a folder and those below it, by their paths in it."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            kind = KINDS.get(path.suffix, PLAIN)
            files[path.relative_to(folder).as_posix()] = _File(content, kind, tag)
    return files


def _takes_html(request: Request) -> bool:
    """Return whether HTML is asked for by its name, as browsers do and `*/*` does not."""
    ranges = ",".join(request.headers.getlist("accept")).split(",")
    return any(one.partition(";")[0].strip().lower() == "text/html" for one in ranges)


def _answer(request: Request, file: _File, more: Mapping[str, str]) -> Response:
    """Return a file, or that the client has it already."""
    headers = {**HEADERS, "ETag": file.tag, **more}
    known = ",".join(request.headers.getlist("if-none-match")).split(",")
    if {file.tag, "*"} & {tag.strip().removeprefix("W/") for tag in known}:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.kind)
