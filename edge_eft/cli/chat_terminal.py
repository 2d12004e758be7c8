"""The chat's terminal: how an entry is typed, or read from a pipe, and what writes a reply.

It knows the commands by name, for completion, and nothing of what they do.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.settings import SETTINGS
from ..errors import RequestError
from ..files.plain_text import lines, reason
from . import interrupts
from .terminal import ReplyWriter, settings_kept, talk

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.key_binding import KeyBindings

    from .reply_view import MarkdownWriter

Commands = Mapping[str, tuple[str, str]]  # name → how it is used, what it does

PROMPT = "› "
_VALUES = {"only": ("base", "tuned", "reference"), "draft": ("auto",)}
_FILE = re.compile(r"""(?<!\S)@(?P<quote>["']?)(?P<path>(?<=["'])[^"']*|\S*)$""")


def completions(text: str, commands: Commands) -> Iterator[tuple[str, int, str]]:
    """Yield what can follow `text` in an entry: (word, how much is typed, what it does)."""
    command, space, argument = text.partition(" ")
    if not space and text.startswith("/"):
        yield from ((w, len(text), what) for w, (_, what) in commands.items() if w.startswith(text))
    elif command == "/set":
        name, separator, value = argument.replace("=", " ", 1).partition(" ")
        if not separator:
            found = ((n, setting.help) for n, setting in SETTINGS.items() if n.startswith(name))
            yield from ((setting, len(name), what) for setting, what in found)
        else:
            values = [*_VALUES.get(name, ()), "off"]
            yield from ((word, len(value), "") for word in values if word.startswith(value))
    elif command in ("/load", "/save"):
        yield from ((path, len(argument), "") for path in _paths(argument))
    elif not text.startswith("/") and (at := _FILE.search(text)):
        quote, begun = at["quote"], at["path"]
        for path in _paths(begun):
            whole = f"{quote}{path}" if path.endswith("/") else f"{quote}{path}{quote}"
            yield (
                whole if quote or " " not in path else f'"{path}"',
                len(quote + begun),
                "",
            )


def _paths(begun: str) -> Iterator[str]:
    """Yield the files and directories whose names begin so; none that hide characters."""
    from prompt_toolkit.completion import CompleteEvent, PathCompleter
    from prompt_toolkit.document import Document

    for found in PathCompleter(expanduser=True).get_completions(Document(begun), CompleteEvent()):
        path = begun + found.text
        if path.isprintable():
            yield f"{path}/" if os.path.isdir(os.path.expanduser(path)) else path


def terminal_reader(commands: Commands, *, kept: bool = True) -> Callable[[str], str]:
    """Return a reader of lines with history, editing and completion.

    It raises EOFError to leave, and KeyboardInterrupt where the entry goes on in a further line.

    Args:
        kept: the history is, for the next chat.
    """
    from prompt_toolkit import PromptSession

    from .history import open_history, tell

    history, presses = open_history(kept=kept), _Presses()
    session: PromptSession[str] = PromptSession(
        history=history,
        completer=_completer(commands),
        key_bindings=_keys(presses),
        enable_suspend=True,
    )
    told = False

    def read(prompt: str) -> str:
        nonlocal told
        presses.n, line = 0, None
        while line is None:
            try:
                line = session.prompt(prompt)
            except KeyboardInterrupt:
                if prompt != PROMPT:
                    raise
                if presses.n > 1:
                    raise EOFError from None
                talk("Ctrl-C again or Ctrl-D leaves")
            finally:
                interrupts.listen()
        if not told and (lost := getattr(history, "lost", None)):
            told = True
            tell(lost)
        return line

    return read


@dataclass
class _Presses:
    """How often Ctrl-C was pressed, one after the other, where nothing is typed."""

    n: int = 0


def _completer(commands: Commands) -> Completer:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

    class Completions(Completer):
        def get_completions(self, document: Document, _: CompleteEvent) -> Iterator[Completion]:
            for word, typed, what in completions(document.text_before_cursor, commands):
                yield Completion(word, -typed, display_meta=what)

    return Completions()


def _keys(presses: _Presses) -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
            presses.n = 0
        else:
            presses.n += 1
            event.app.exit(exception=KeyboardInterrupt)

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def plain_reader() -> Callable[[str], str]:
    """Return a reader of lines from a pipe; EOFError at its end."""
    entries = lines(sys.stdin.buffer)

    def read(_: str) -> str:
        try:
            return next(entries)
        except StopIteration:
            raise EOFError from None
        except UnicodeDecodeError:
            raise RequestError("a line on stdin is not UTF-8; convert it, as with iconv") from None
        except OSError as error:
            raise RequestError(f"stdin cannot be read ({reason(error)})") from None

    return read


def read_entry(read: Callable[[str], str]) -> str:
    """Return one line, or what stands between two \"\"\" (then with a line end before it)."""
    line = read(PROMPT)
    if not line.lstrip().startswith('"""'):
        return line
    lines = [line.lstrip()[3:]]
    try:
        while not lines[-1].rstrip().endswith('"""'):
            lines.append(read("… "))
    except EOFError:
        pass  # it ends here
    except KeyboardInterrupt:
        return ""
    return "\n" + "\n".join(lines).rstrip().removesuffix('"""')


# -- the reply -----------------------------------------------------------------------------


def reply_writer(plain: bool) -> ReplyWriter | MarkdownWriter:
    """Return what writes a reply to stdout: Markdown on a terminal, unless it is to be `plain`."""
    if plain or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return ReplyWriter(for_people=True)
    from .reply_view import MarkdownWriter

    return MarkdownWriter()


@contextlib.contextmanager
def silent_keys(again: Callable[[], None]) -> Iterator[None]:
    """Do not let a terminal show what is typed meanwhile; it is kept for the next prompt.

    It would stand in the middle of a reply, ^C not least.

    Args:
        again: called when the chat is in the foreground again, after Ctrl-Z.
    """
    if os.name != "posix" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield
        return
    import termios

    def be_silent(*_: object) -> None:
        with contextlib.suppress(termios.error):  # it went away
            silent = termios.tcgetattr(sys.stdin.fileno())
            silent[3] &= ~termios.ECHO
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, silent)

    def go_on(*_: object) -> None:  # a shell has had the terminal, with settings of its own
        be_silent()
        again()

    with settings_kept():
        be_silent()
        handler = signal.signal(signal.SIGCONT, go_on)
        try:
            yield
        finally:
            signal.signal(signal.SIGCONT, handler)
