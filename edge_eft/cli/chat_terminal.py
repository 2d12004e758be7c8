"""The chat's terminal: how an entry is typed, and read from a pipe where nobody types.

It knows the commands by name, for completion, and nothing of what they do.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping

from ..engine.settings import SETTINGS
from ..errors import RequestError
from ..files.plain_text import lines, reason
from . import interrupts

Commands = Mapping[str, tuple[str, str]]  # name → how it is used, what it does


def completions(text: str, commands: Commands) -> Iterator[tuple[str, int, str]]:
    """Yield what can follow `text` in a command: (word, how much is typed, what it does)."""
    command, space, argument = text.partition(" ")
    if not space and text.startswith("/"):
        yield from ((w, len(text), what) for w, (_, what) in commands.items() if w.startswith(text))
    elif command == "/set" and " " not in argument:
        for name, setting in SETTINGS.items():
            if name.startswith(argument):
                yield name, len(argument), setting.about


def terminal_reader(commands: Commands) -> Callable[[str], str]:
    """Return a reader of lines with history, editing and completion; EOFError to leave."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from .history import open_history, tell

    class Completions(Completer):
        def get_completions(self, document: Document, _: CompleteEvent) -> Iterator[Completion]:
            for word, typed, what in completions(document.text_before_cursor, commands):
                yield Completion(word, -typed, display_meta=what)

    keys = KeyBindings()

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=EOFError)

    history = open_history()
    session: PromptSession[str] = PromptSession(
        history=history, completer=Completions(), key_bindings=keys, enable_suspend=True
    )
    told = False

    def read(prompt: str) -> str:
        nonlocal told
        try:
            line = session.prompt(prompt)
        finally:
            interrupts.listen()
        if not told and (lost := getattr(history, "lost", None)):
            told = True
            tell(lost)
        return line

    return read


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
    line = read("› ")
    if not line.lstrip().startswith('"""'):
        return line
    lines = [line.lstrip()[3:]]
    with contextlib.suppress(EOFError):
        while not lines[-1].rstrip().endswith('"""'):
            lines.append(read("… "))
    return "\n" + "\n".join(lines).rstrip().removesuffix('"""')
