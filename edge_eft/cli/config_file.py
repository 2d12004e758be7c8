"""The user's own defaults: which keys there are, and the file that holds them.

$EDGE_EFT_HOME/config.toml, else config.toml in the platform's place for configuration. At the top
are keys, each the name of an option; a table of a command's name overrides them for that command.
The environment (EDGE_EFT_TEMPERATURE) overrides the file, and the command line both. Keys are
looked at as soon as the file is read, values when an option is asked for: by the option itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..files.plain_text import decode, read_regular, reason
from ..system import config_file
from ..validate import did_you_mean

KEYS = (
    *("recipe", "alpha", "mix", "temperature", "max_tokens", "top_k", "top_p", "min_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "seed", "stop", "draft"),
    *("system", "chat_template_kwargs", "n_ctx", "threads", "gpu_layers", "slots"),
    *("quiet", "verbose", "host", "port", "queue", "keep_alive", "cors", "allow_host"),
    *("no_log", "plain"),
)
# The commands that have such options.
COMMANDS = (
    *("demo", "run", "chat", "compare", "show", "inspect", "serve", "pull", "new", "bench"),
)

_MAX_BYTES = 1 << 20
# What may be a table or a list; others have one value.
_TABLES, _LISTS = ("mix", "chat_template_kwargs"), ("stop", "cors", "allow_host")
_HEADER = re.compile(r"\s*\[")
_META = "edge_eft.config"


def path_or_none() -> Path | None:
    """Return where the file is, or would be; None without a home."""
    try:
        return config_file()
    except OSError:
        return None


def read() -> dict[str, Any]:
    """Return what the file holds, its keys checked; nothing if there is none.

    Raises ClickException, naming the file and the key.
    """
    path = path_or_none()
    text = "" if path is None else read_text(path)
    if path is None or not text:
        return {}
    import tomllib  # where there is a file: it takes longer than the rest

    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is the former
        raise click.ClickException(
            f"{path}: is not valid TOML ({error}); mend it, or remove it"
        ) from None
    for key, value in data.items():
        if key not in COMMANDS:
            _check(key, value, f"{path}: ")
        elif isinstance(value, dict):
            for inner, each in value.items():
                _check(inner, each, f"{path}: [{key}] ")
        else:
            raise click.ClickException(
                f"{path}: {key} is {_kind(value)}; write [{key}] and below it what is for it alone"
            )
    return data


def _check(key: str, value: Any, where: str) -> None:
    """Raise ClickException if a key is not known, or its value cannot be typed."""
    check_key(key, where)
    each = value if isinstance(value, list) and key in _LISTS else [value]
    if any(isinstance(one, list) or (isinstance(one, dict) and key not in _TABLES) for one in each):
        raise click.ClickException(f"{where}{key} is {_kind(value)}; write one value")
    try:
        str(value)
    except ValueError:  # of thousands of digits, in hexadecimal
        raise click.ClickException(f"{where}{key} is a number of too many digits") from None


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else "one value"


def check_key(key: str, where: str) -> None:
    """Raise ClickException, which begins with `where`, if nothing has a default by that name."""
    if key not in KEYS:
        near = did_you_mean(key, [*KEYS, *COMMANDS]) or "; `edge-eft config` lists the keys"
        raise click.ClickException(f"{where}unknown key {key!r:.60}{near}")


def read_text(path: Path) -> str:
    """Return the file's text, "" if there is none. Raises ClickException if it cannot be read."""
    try:
        return decode(read_regular(path, _MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):  # then nothing can be kept there either
        return ""
    except (OSError, ValueError) as error:
        what = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else reason(error)
        raise click.ClickException(f"{path}: cannot be read ({what})") from None


def value_for(ctx: click.Context, name: str) -> Any:
    """Return what the file says of an option of the command that runs, None if nothing.

    The file is read once in a call of the program.
    """
    if _META not in ctx.meta:
        ctx.meta[_META] = read()
    data: Mapping[str, Any] = ctx.meta[_META]
    table = data.get(ctx.command.name or "")
    found = {**data, **table} if isinstance(table, dict) else data
    return None if name not in found else as_words(name, found[name], ctx.command)


def as_words(name: str, value: Any, command: click.Command) -> Any:
    """Return a value as it would be typed, for the option to read; a list if it takes several."""
    several = any(param.name == name and param.multiple for param in command.params)
    if several and not isinstance(value, list):
        value = [value]
    return [_word(name, each) for each in value] if several else _word(name, value)


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict) and name == "mix":
        return ",".join(f"{delta}={weight}" for delta, weight in value.items())
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def place_of(name: str, ctx: click.Context) -> str:
    """Return where the file has the value that `value_for` gave, for a message."""
    table = (ctx.meta.get(_META) or {}).get(ctx.command.name or "")
    inner = isinstance(table, dict) and name in table
    return f"{path_or_none()}: {f'[{ctx.command.name}] ' if inner else ''}{name}"


def edited(text: str, table: str, key: str, literal: str | None) -> str:
    """Return the file's text with one key set, or without it; all else stays as it is.

    Args:
        text: valid TOML.
        table: the command's, or "" for the keys at the top.
        literal: the value in TOML; None removes the key.

    Raises ValueError if that takes more than changing one line.
    """
    import tomllib

    lines = text.splitlines()
    begin = 0
    if table:
        heads = [i for i, line in enumerate(lines) if re.match(rf"\s*\[\s*{table}\s*\]", line)]
        if not heads:
            lines += [*([""] if lines else []), f"[{table}]"]
            heads = [len(lines) - 1]
        begin = heads[0] + 1
    end = next((i for i in range(begin, len(lines)) if _HEADER.match(lines[i])), len(lines))
    at = [i for i in range(begin, end) if re.match(rf"\s*{key}\s*=", lines[i])]
    new = [] if literal is None else [f"{key} = {literal}"]
    if at:
        lines[at[0] : at[0] + 1] = [each + _comment(lines[at[0]]) for each in new]
    else:
        while end > begin and not lines[end - 1].strip():
            end -= 1
        lines[end:end] = [*new, *([""] if end < len(lines) and lines[end].strip() else [])]
    result = "\n".join([*lines, ""]) if lines else ""
    expected = tomllib.loads(text)
    place = expected.setdefault(table, {}) if table else expected
    place.pop(key, None)
    if literal is not None:
        place |= tomllib.loads(f"{key} = {literal}")
    if tomllib.loads(result) != expected:
        raise ValueError
    return result


def _comment(line: str) -> str:
    """Return the comment that ends a line, if it is sure to be one."""
    found = re.fullmatch(r"[^=]*=\s*(?:\"[^\"]*\"|'[^']*'|[^#\"'\s]*)(\s*#.*)", line)
    return found[1] if found else ""
