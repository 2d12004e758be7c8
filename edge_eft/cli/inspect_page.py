"""A reply as one HTML file that needs nothing else: the token view of the server's page.

The page's own modules go in as they are, each in a function of its own instead of a file; the
browser runs no script but that one, which a hash in the file's policy names, and asks for nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

_HERE = resources.files(__package__)
_PAGE = resources.files("edge_eft.server") / "page"
_MAIN = "inspect.js"
_STYLES = (_PAGE / "style.css", _PAGE / "tokens.css", _HERE / "inspect.css")

_IMPORT = re.compile(r'^import (\{.*?\}) from "[\w./]*?(\w+\.js)";\n', re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export (?=(?:async function|function|class|const) (\w+))", re.MULTILINE)

_FILE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; base-uri 'none'; \
form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="edge-eft inspect">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<div class="inspect">
<main>
<h1>A reply, token by token</h1>
<p class="prompt">{prompt}</p>
<div id="tokens"><p class="prompt">{text}</p></div>
<p class="how">{how}</p>
<dl>
{figures}
</dl>
</main>
<aside class="panel" id="panel" aria-label="Token"></aside>
</div>
<script type="application/json" id="reply">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""
_HOW = (
    "A large base model was steered as it wrote: to its scores for every next token, what tuning "
    "changed in a small model was added, α times. A token is shaded and underlined by how much "
    "likelier (or less likely) that made it than under the base alone; ▾ stands where the base "
    "would have said something else first."
)


def page(
    title: str,
    prompt: str,
    text: str,
    figures: Iterable[tuple[str, str]],
    reply: Mapping[str, Any],
) -> str:
    """Return the file.

    Args:
        prompt, text: what was asked, and the reply, as a reader without JavaScript sees it.
        figures: name and value of each line below the reply.
        reply: for the page's script: `deltas`, `marks` with the weights, and `explain`, the
            tokens as the server has them.
    """
    script = f"\n{_script()}"
    style = f"\n{''.join(each.read_text('utf-8') for each in _STYLES)}"
    rows = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in figures
    )
    return _FILE.format(
        title=html.escape(title),
        prompt=html.escape(prompt),
        text=html.escape(text),
        how=_HOW,
        figures="\n".join(rows),
        data=json.dumps(reply).replace("<", "\\u003c"),
        style=style,
        style_hash=_sha256(style),
        script=script,
        script_hash=_sha256(script),
    )


def _script() -> str:
    """Return inspect.js with all that it imports, as one module."""
    parts: dict[str, str] = {}
    _collect(_MAIN, parts)
    return "".join(parts.values())


def _collect(name: str, parts: dict[str, str]) -> None:
    """Add a module to `parts`, behind those that it imports."""
    if name in parts:
        return
    where = _HERE if name == _MAIN else _PAGE
    source = (where / name).read_text("utf-8")
    for match in _IMPORT.finditer(source):
        _collect(match[2], parts)
    exported = ", ".join(_EXPORT.findall(source))
    body = _EXPORT.sub(
        "", _IMPORT.sub(lambda match: f"const {match[1]} = {_as(match[2])};\n", source)
    )
    parts[name] = f"const {_as(name)} = (() => {{\n{body}return {{ {exported} }};\n}})();\n"


def _as(name: str) -> str:
    return name.replace(".", "_")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
