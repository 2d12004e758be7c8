"""Prompts from outside: words, stdin, and files of JSON lines; and the form that replies are given.

Nothing here waits for ever: who gives a prompt and has a stdin that says nothing is answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import EdgeEftError, RequestError
from ..files.plain_text import decode, read_at_most, read_regular, reason, utf8
from ..files.recipe import absolute
from .terminal import say, talk

if TYPE_CHECKING:
    from ..engine.request import Request
    from ..engine.settings import Defaults

PATIENCE = 10.0  # seconds for the first byte of a stdin beside a prompt

_MAX_PROMPT_BYTES = 64 << 20  # more than any context holds
_MAX_INPUT_BYTES = 256 << 20
_MAX_FORM_BYTES = 16 << 20  # more than a schema or a grammar may have
_NO_TEXT = "the prompt on stdin is not UTF-8; convert it, as with iconv"


class Asked(NamedTuple):
    """One prompt of an input file: where it stands, what it is called, and the request."""

    where: str
    id: Any
    request: Request


def prompt_of(words: Sequence[str]) -> str:
    """Return the prompt: the word that is given, what stdin holds, or both, a blank line between.

    Beside a word, stdin counts if it is a file or a pipe that has something; a `-` waits for it.
    """
    given = [word for word in words if word != "-"]
    if not given:
        return read_stdin()
    try:
        prompt = decode(given[0].encode())
    except UnicodeEncodeError:
        raise RequestError("the prompt is not UTF-8; convert it, as with iconv") from None
    more = read_stdin() if "-" in words else _piped()
    return f"{prompt}\n\n{more}" if more.strip() else prompt


def read_stdin() -> str:
    """Return the prompt from stdin, less one line end and a byte-order mark.

    Its lines end in \\n as the models' training texts do, also where Windows wrote \\r\\n.
    """
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        say("edge-eft: type the prompt, then Ctrl-D; to converse: edge-eft chat", err=True)
    try:
        return decode(read_at_most(sys.stdin.buffer, _MAX_PROMPT_BYTES)).removesuffix("\n")
    except UnicodeDecodeError:
        raise RequestError(_NO_TEXT) from None
    except OSError as error:
        raise RequestError(f"the prompt on stdin cannot be read ({reason(error)})") from None


def _piped() -> str:
    """Return what is on stdin if it is a file or a pipe; "" if it is neither, or stays silent."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    descriptor = None
    with contextlib.suppress(OSError, ValueError):  # a stream of a test's
        descriptor = sys.stdin.fileno()
    if descriptor is None:
        return read_stdin()
    try:
        kind = os.fstat(descriptor).st_mode
    except OSError:
        return ""
    if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
        return read_stdin() if _says_something(descriptor) else ""
    return read_stdin() if stat.S_ISREG(kind) else ""


def _says_something(descriptor: int) -> bool:
    """Return whether a pipe has something to read, or has ended, before PATIENCE runs out."""
    if os.name != "posix":  # select waits for sockets alone there
        return True
    import select

    if select.select([descriptor], [], [], PATIENCE)[0]:
        return True
    talk(
        f"nothing came on stdin in {PATIENCE:g} s, so the prompt alone is answered; add - to "
        "wait for stdin"
    )
    return False


def read_prompts(file: str, defaults: Defaults) -> Iterator[Asked]:
    """Yield the prompts of a file of JSON lines; RequestError names the line that is wrong."""
    n = 0
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        n += 1
        where = f"{file} line {number}"
        try:
            # Files that were put together have the mark of each part.
            entry = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise RequestError(f"{where}: is not UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{where}: is not JSON ({error}); quote a plain text") from None
        if isinstance(entry, str):
            entry = {"prompt": entry}
        if not isinstance(entry, dict):
            raise RequestError(f"{where}: is neither a text nor an object")
        name = entry.pop("id", None)
        try:
            yield Asked(where, n if name is None else name, defaults.request(entry))
        except EdgeEftError as error:
            raise type(error)(f"{where}: {error}") from None
    if not n:
        raise RequestError(f"{file}: holds no prompt; give one JSON text or object per line")


def _lines(file: str) -> list[bytes]:
    """Return the lines of a file or of stdin, in UTF-8."""
    try:
        if file == "-":
            return utf8(read_at_most(sys.stdin.buffer, _MAX_INPUT_BYTES)).split(b"\n")
        with open(absolute(file), "rb") as opened:
            return utf8(read_at_most(opened, _MAX_INPUT_BYTES)).split(b"\n")
    except UnicodeDecodeError:
        raise RequestError(f"{file}: begins as UTF-16 and is not; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{file}: cannot be read ({reason(error)}); give a file of JSON lines"
        ) from None


def read_form(schema: str | None, grammar: str | None) -> Mapping[str, Any]:
    """Return the setting for the form that replies are to have; none without one.

    Args:
        schema: a file with a JSON schema, or the schema.
        grammar: a file with a grammar in GBNF.

    Raises RequestError, naming the file, if it is not what it is to be.
    """
    if schema is not None and grammar is not None:
        raise RequestError("--schema and --grammar exclude each other; give one")
    file = schema if schema is not None else grammar
    if file is None:
        return {}
    from ..engine.settings import constraint

    what = "a JSON schema" if schema is not None else "a grammar in GBNF"
    try:
        if schema is not None and schema.lstrip().startswith("{"):
            file, text = "--schema", schema
        else:
            text = decode(read_regular(absolute(file), _MAX_FORM_BYTES))
        form = json.loads(text) if schema is not None else text
        given = {"schema" if schema is not None else "grammar": form}
        constraint(**given)
    except UnicodeDecodeError:
        raise RequestError(f"{file}: is not UTF-8; give {what}") from None
    except OSError as error:
        raise RequestError(f"{file}: cannot be read ({reason(error)}); give {what}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{file}: is not JSON ({error}); give {what}") from None
    except RequestError as error:
        raise RequestError(f"{file}: {error}") from None
    return given
