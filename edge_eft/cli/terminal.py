"""What a terminal is shown: text without control characters.

Every word on its way to stdout or stderr goes through `say`, `talk` or a `ReplyWriter`, or through
a `console` of rich; nothing else in edge_eft prints, and a test reads the source to keep it so.
They filter what they are given, whoever wrote it: names, paths, metadata, saved chats, replies,
errors, logs. What has a style was put together by `style` and `compose`, which filter the pieces
first.

One kind of text stays as it is: a reply of `run` into a pipe or a file. There it is data, and who
shows it to a terminal later is whoever reads it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import click

from ..errors import RequestError
from ..files.plain_text import reason

# C0, DEL and C1 except \n and \t; every character with the property Bidi_Control, which can make
# text read as what it is not (CVE-2021-42574); the separators that end a line or a paragraph;
# surrogates, which no terminal can be sent. Joiners and variation selectors stay: emoji and many
# scripts need them.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINE_END = re.compile("[\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, or a byte of a name not in UTF-8
_ESC, _CSI = "\x1b", "\x9b"
_STRING_AFTER_ESC = "PX]^_"  # DCS, SOS, OSC, PM, APC; their C1 forms next (ECMA-48, 5.3)
_STRING_C1 = "\x90\x98\x9d\x9e\x9f"


class ControlFilter:
    """Drops control characters and terminal sequences from text that comes in chunks.

    Without their introducers the remains of a sequence are harmless, but they are not text either,
    so whole sequences go: ESC and its final character, CSI with its parameters, and the strings
    OSC, DCS, SOS, PM and APC up to their end (BEL, ST) or the end of the line, so that a lone
    introducer does not swallow the rest of a reply.
    """

    def __init__(self) -> None:
        self._state = "text"

    def filter(self, text: str) -> str:
        """Return the harmless part of `text`, the next chunk of the stream."""
        if self._state == "text" and not _UNSAFE.search(text):
            return text
        text = _SURROGATE.sub("\ufffd", _LINE_END.sub("\n", text))
        return "".join(c for c in text if self._keep(c))

    def _keep(self, c: str) -> bool:
        """Move on by one character. Returns whether it is text."""
        state, self._state = self._state, "text"
        if c == _ESC:
            self._state = "string-esc" if state.startswith("string") else "escape"
        elif c == _CSI:
            self._state = "csi"
        elif c in _STRING_C1:
            self._state = "string"
        elif state == "string-esc" and c == "\\":
            pass
        elif state.startswith("string") and c not in "\n\x07\x9c":
            self._state = "string"
        elif state == "escape" and c == "[":
            self._state = "csi"
        elif state == "escape" and c in _STRING_AFTER_ESC:
            self._state = "string"
        elif state == "escape" and " " <= c <= "/":
            self._state = "escape"
        elif state == "csi" and " " <= c <= "?":
            self._state = "csi"
        elif state in ("escape", "csi") and " " <= c <= "~":
            pass  # the final character of the sequence
        else:
            return not _UNSAFE.match(c)
        return False


def harmless(text: str) -> str:
    """Return a whole text without what drives a terminal."""
    return ControlFilter().filter(text)


def one_line(text: str) -> str:
    """Text that may hold anything, as one harmless line."""
    return re.sub("[ \t\n]+", " ", harmless(text)).strip(" ")  # wide spaces are part of names


def counted(n: int, what: str, several: str = "") -> str:
    """Return "1 file" or "3 files"."""
    return f"{n} {what if n == 1 else several or f'{what}s'}"


def tidy(text: str) -> str:
    """Return a model's text without control characters and outer white space."""
    return harmless(text).strip()


class Styled(str):
    """Text that is filtered already, with no sequences in it but those of our own styles.

    Only `style` and `compose` make it. An f-string, `+` or `join` gives a plain str, from which
    `say` takes the styles, too: what is put together in the wrong way is dull and not dangerous.
    """

    __slots__ = ()


def style(text: str, **how: Any) -> Styled:
    """Return the harmless part of `text` in a style of `click.style`."""
    return Styled(click.style(harmless(text), **how))


dim = partial(style, dim=True)


def compose(*parts: str, between: str = "") -> Styled:
    """Return `parts` one after the other; filtered, if they are not `Styled`."""
    return Styled(between.join(p if isinstance(p, Styled) else harmless(p) for p in parts))


@contextmanager
def writing_to(stream: str) -> Iterator[None]:
    """Let an OSError name the stream that could not be written."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or stream
        raise


_above: Callable[[], AbstractContextManager[None]] = nullcontext


def write_above(display: Callable[[], AbstractContextManager[None]] | None) -> None:
    """Write lines, from now on, in this context, as a display stands there; None: as ever."""
    global _above
    _above = display or nullcontext


def above() -> AbstractContextManager[None]:
    """Let whole lines be written above the display, if there is one."""
    return _above()


def say(*parts: str, err: bool = False) -> None:
    """Print `parts` and a line end, on stdout or, if `err`, on stderr: styled or filtered."""
    with writing_to("stderr" if err else "stdout"), above():
        click.echo(compose(*parts), err=err)


def say_bytes(data: bytes) -> None:
    """Write a file's content to stdout as it is, in whatever encoding a terminal's text is."""
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Leave out, from now on, what is neither data nor an error: notes, warnings, progress."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Return whether errors are all that is to be said on stderr."""
    return _quiet


def talk(line: str) -> None:
    """Say one dim line on stderr, unless it is to be quiet there; no terminal cuts its words."""
    if _quiet:
        return
    if sys.stderr.isatty():
        line = "\n".join(_wrapped(piece) for piece in line.split("\n"))
    say(dim(line), err=True)


def _wrapped(line: str) -> str:
    """Return a line as several that fit the terminal, broken between words."""
    import shutil
    import textwrap

    return textwrap.fill(
        line,
        max(20, shutil.get_terminal_size((100, 24)).columns),
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )


def agreed(question: str) -> bool | None:
    """Ask on stderr; no answer is a no. None where nobody can be asked: there is no terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    try:
        return click.confirm(one_line(question), err=True)
    except (click.Abort, KeyboardInterrupt):  # after Ctrl-D or Ctrl-C
        say(err=True)
        raise


def edited(text: str) -> str:
    """Return what becomes of `text` in the user's editor; "" if it is not saved there.

    Raises:
        RequestError: there is no terminal, or the editor fails.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise RequestError("an editor needs a terminal; @FILE puts a file into a message")
    try:
        with settings_kept():
            return click.edit(text, extension=".md") or ""
    except click.ClickException as error:
        raise RequestError(f"{error.message}; EDITOR names the editor to use") from None
    except UnicodeDecodeError:
        raise RequestError("the editor's text is not UTF-8; let it save UTF-8") from None
    except OSError as error:
        raise RequestError(
            f"the editor's text cannot be read ({reason(error)}); nothing is sent"
        ) from None


@contextmanager
def settings_kept() -> Iterator[None]:
    """Let the terminal of stdin have the settings that it has now, after whatever happens."""
    if os.name != "posix" or not sys.stdin.isatty():
        yield
        return
    import termios

    settings = termios.tcgetattr(sys.stdin.fileno())
    try:
        yield
    finally:
        with suppress(termios.error):  # it went away
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, settings)


class ReplyWriter:
    """Writes a reply to stdout as it comes: harmless to a terminal, unchanged into a pipe.

    Args:
        for_people: filter it into a pipe, too, where it stands among what is not data.
    """

    def __init__(self, *, for_people: bool = False) -> None:
        filtered = for_people or sys.stdout.isatty()
        self._filter = ControlFilter() if filtered else None
        self._begun = False

    def write(self, text: str) -> None:
        """Write the next chunk, and show it at once."""
        self._begun = self._begun or bool(text)
        with writing_to("stdout"):
            sys.stdout.write(self._filter.filter(text) if self._filter else text)
            sys.stdout.flush()

    def again(self) -> None:
        """Go on after the terminal was another's: what was written stays where it is."""

    def close(self) -> None:
        """End the line, if one was begun."""
        if self._begun:
            say()


def start_logging(verbose: bool) -> None:
    """Warnings, or more, to stderr, one line each and harmless."""

    class OneLine(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return one_line(f"edge-eft: {record.getMessage()}")

    class Above(logging.StreamHandler):
        def emit(self, record: logging.LogRecord) -> None:
            with above():
                super().emit(record)

    handler = Above()
    handler.setFormatter(OneLine())
    handler.addFilter(lambda record: bool(record.getMessage()))  # native code is done: not news
    level = logging.INFO if verbose else logging.ERROR if _quiet else logging.WARNING
    handler.setLevel(level)  # loggers below may let more through, to other handlers
    logger = logging.getLogger("edge_eft")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)


def terminal_width() -> int:
    """Return the columns to use: the terminal's, and no line longer than 100."""
    import shutil

    return max(40, min(100, shutil.get_terminal_size((100, 24)).columns))


def supports(characters: str) -> bool:
    """Return whether stdout can show these characters."""
    try:
        characters.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def to_json(content: Any) -> str:
    """Return one line of ASCII without DEL, so that nothing in it can harm a terminal."""
    return json.dumps(content).replace("\x7f", "\\u007f")
