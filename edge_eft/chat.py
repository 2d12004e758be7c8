"""The terminal chat: a conversation, its slash commands, and the terminal that carries both.

`Conversation` is what was said and how replies are drawn; it needs no model. `Chat` answers one
entry after another from an emulator's steps. `run` reads the entries: with prompt_toolkit from a
terminal, as plain lines from a pipe. The settings that the chat, the command line and the lines of
a prompt file have in common are at the top.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .checks import did_you_mean
from .errors import AbortedError, EdgeEftError, PromptError, RequestError
from .options import SETTINGS, request_for
from .replies import compare, interruptible, report, side_by_side, stream, talk, times
from .reply import ReplyBuilder, Timings
from .request import Request
from .template import check_messages
from .text import ControlFilter

if TYPE_CHECKING:
    from .emulator import Emulator


# -- the conversation ----------------------------------------------------------------------

COMMANDS = {
    "/set": ("[NAME VALUE|off]", "change a setting from the next reply on; alone: show them"),
    "/compare": ("[TEXT]", "base, tuned and emulated side by side, on TEXT or the last message"),
    "/regenerate": ("", "draw the last reply anew"),
    "/system": ("[TEXT|off]", "set, drop or show the system message"),
    "/save": ("FILE", "write the conversation and its settings"),
    "/load": ("FILE", "go on with a saved conversation"),
    "/clear": ("", "forget what was said; settings stay"),
    "/stats": ("", "tokens, speed and where the time went, so far"),
    "/help": ("", "this list"),
    "/bye": ("", "leave (as Ctrl-D does)"),
}


@dataclass
class Conversation:
    """What was said and how replies are drawn. `deltas` are the recipe's: name → weight."""

    deltas: Mapping[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    turns: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.check(self.settings)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise RequestError if these settings do not suit the recipe."""
        request = request_for("", settings)
        request.weights.coefficients(self.deltas)
        if request.conservative is not None:
            request.weights.conservative_role(self.deltas)

    def request(self, text: str | None = None) -> Request:
        """For the reply that is due, or for the one that `text` would get."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        new = [{"role": "user", "content": text}] if text is not None else []
        return request_for([*system, *self.turns, *new], self.settings)

    def say(self, role: str, content: str) -> None:
        """Add a turn."""
        self.turns.append({"role": role, "content": content})

    def take_back(self) -> bool:
        """Drop the last reply; False if no message is then left to reply to."""
        if self.turns and self.turns[-1]["role"] == "assistant":
            self.turns.pop()
        return bool(self.turns)

    def set(self, argument: str) -> str:
        """`NAME VALUE`, `NAME off`, `NAME` or nothing; what to tell. An error changes nothing."""
        name, _, text = (part.strip() for part in argument.partition(" "))
        if not name:
            return "\n".join(f"{name:<20}{self._value(name)}" for name in SETTINGS)
        name = name.replace("-", "_")
        if name not in SETTINGS:
            near = did_you_mean(name, SETTINGS)
            raise RequestError(f"there is no setting {name!r}{near}; /set lists them")
        if text:
            changed = {key: value for key, value in self.settings.items() if key != name}
            if text != "off":
                try:
                    changed[name] = SETTINGS[name].read(text)
                except ValueError:
                    kind = "a whole number" if SETTINGS[name].read is int else "a number"
                    raise RequestError(f"{name} is {text!r}; it must be {kind}") from None
            self.check(changed)
            self.settings = changed
        return f"{name} is {self._value(name)}"

    def _value(self, name: str) -> str:
        defaults = {"alpha": 1.0, "seed": "another each time"}
        default = defaults.get(name, getattr(Request(""), name, None))
        value = self.settings.get(name, default)
        if isinstance(value, dict):
            return ",".join(f"{delta}={weight:g}" for delta, weight in value.items())
        return "off" if value is None else str(value)

    def set_system(self, argument: str) -> str:
        """Set, drop or show the system message; what to tell."""
        if argument:
            self.system = None if argument == "off" else argument
        return f"system message: {self.system or 'none'}"

    def clear(self, _: str) -> str:
        """Forget what was said; what to tell."""
        self.turns = []
        return "the conversation is empty"

    def up_to_last_message(self) -> Conversation:
        """A copy that ends with the last user message."""
        turns = list(self.turns)
        while turns and turns[-1]["role"] != "user":
            turns.pop()
        return replace(self, turns=turns)

    def save(self, argument: str) -> str:
        """Write a JSON file, whole or not at all; what is no saved chat is not overwritten."""
        path = _path(argument, "/save")
        if path.exists():
            try:
                self._read(path)
            except RequestError:
                raise RequestError(
                    f"{path} exists and is no saved chat; choose a new name"
                ) from None
        content = {"system": self.system, "settings": self.settings, "messages": self.turns}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RequestError(f"{path} cannot be written ({error.strerror})") from None
        return f"saved {len(self.turns)} messages to {path}"

    def load(self, argument: str) -> str:
        """Take over a saved conversation; an error changes nothing."""
        path = _path(argument, "/load")
        settings, system, turns = self._read(path)
        self.check(settings)
        self.settings, self.system, self.turns = settings, system, turns
        return f"loaded {len(self.turns)} messages from {path}"

    def _read(self, path: Path) -> tuple[dict[str, Any], str | None, list[dict[str, str]]]:
        try:
            content = json.loads(path.read_text("utf-8"))
            settings, system, turns = (content[k] for k in ("settings", "system", "messages"))
            if not isinstance(settings, dict) or not isinstance(system, str | None):
                raise TypeError
            return settings, system, check_messages(turns) if turns else []
        except OSError as error:
            raise RequestError(f"{path} cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, RecursionError, PromptError):
            raise RequestError(f"{path} is no saved chat; /save writes one") from None


def _path(argument: str, command: str) -> Path:
    if not argument:
        raise RequestError(f"{command} needs a file, as in {command} chat.json")
    return Path(argument).expanduser()


# -- answering -----------------------------------------------------------------------------


class Chat:
    """Answers entries from an emulator: replies on stdout, talk on stderr."""

    def __init__(self, emulator: Emulator, conversation: Conversation) -> None:
        self.emulator = emulator
        self.conversation = conversation
        self.total = Timings()
        self.n_replies = self.n_tokens = self.n_with_prompt = self.n_held = 0

    def handle(self, entry: str) -> bool:
        """Carry out a command or answer a message; False to leave. Errors are told, not raised."""
        try:
            if entry.startswith("/"):
                return self._command(*entry.strip().partition(" ")[::2])
            before = list(self.conversation.turns)
            self.conversation.say("user", entry.strip())
            return self._answer(before)
        except EdgeEftError as error:
            talk(f"edge-eft: {error}")
        except KeyboardInterrupt:  # while nothing was being decoded
            talk("stopped")
        return True

    def _command(self, name: str, argument: str) -> bool:
        argument, conversation = argument.strip(), self.conversation
        if name not in COMMANDS:
            near = did_you_mean(name, COMMANDS)
            raise RequestError(
                f"there is no command {name!r}{near}; /help lists them, a space first makes it text"
            )
        if name == "/bye":
            return False
        if name == "/regenerate":
            before = list(conversation.turns)
            if not conversation.take_back():
                raise RequestError("there is no message to reply to yet")
            return self._answer(before)
        told = {
            "/set": conversation.set,
            "/save": conversation.save,
            "/load": conversation.load,
            "/system": conversation.set_system,
            "/clear": conversation.clear,
            "/compare": self._compare,
            "/stats": self._stats,
            "/help": _help,
        }
        click.echo(told[name](argument))
        return True

    def _answer(self, before: list[dict[str, str]]) -> bool:
        """Stream a reply and keep what came of it; without any, go back to the turns `before`."""
        conversation, harmless = self.conversation, ControlFilter()
        reply = None

        def show(text: str) -> None:
            text = harmless.filter(text)
            click.echo(text if reply and reply.begun else text.lstrip(), nl=False)

        presses = 0
        try:
            reply = ReplyBuilder(conversation.request())
            presses = stream(self.emulator, reply, show)
        finally:
            if reply and reply.begun:
                click.echo()
                conversation.say("assistant", reply.text)
            else:
                conversation.turns = before
        done = reply.generation()
        self.total.add(done.timings)
        self.n_replies += 1
        self.n_held = done.prompt_tokens + len(done.tokens)
        self.n_tokens += len(done.tokens)
        self.n_with_prompt += min(done.came_with_prompt, len(done.tokens))
        talk(report(done) if done.text.strip() else "no reply; the message is not kept")
        return presses < 2

    def _compare(self, argument: str) -> str:
        asked = [t for t in self.conversation.turns if t["role"] == "user"]
        if not argument and not asked:
            raise RequestError("there is no message yet; say something, or give /compare a text")
        last = self.conversation.up_to_last_message() if not argument else self.conversation
        with interruptible(self.emulator):
            try:
                return side_by_side(compare(self.emulator, last.request(argument or None)))
            except AbortedError:
                return "stopped"

    def _stats(self, _: str) -> str:
        total = self.total
        n, seconds = self.n_replies, total.after_prompt
        speed = (self.n_tokens - self.n_with_prompt) / seconds if seconds > 0 else 0.0
        lines = [
            f"{n} {'reply' if n == 1 else 'replies'}, {self.n_tokens} tokens, {speed:.1f} tokens/s",
            f"{'context':<16}{self.n_held} of {self.emulator.record.n_ctx} tokens",
            f"{'memory':<16}{self.emulator.record.memory.total / 2**20:,.0f} MiB",
        ]
        for part, t in times(total).items():
            lines.append(f"{part:<16}{t:.2f} s, {t / (total.total or 1):.0%}")
        return "\n".join(lines)


def _help(_: str) -> str:
    lines = [f"{f'{name} {usage}':<24}{what}" for name, (usage, what) in COMMANDS.items()]
    lines.append('"""                     begins and ends a message of several lines')
    lines.append("Ctrl-C                  stops a reply and keeps what came of it; again: leaves")
    return "\n".join(lines)


# -- the terminal --------------------------------------------------------------------------


def state_dir() -> Path:
    """Where the history is kept: $EDGE_EFT_HOME, or the platform's place for such things."""
    if home := os.environ.get("EDGE_EFT_HOME"):
        return Path(home)
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/edge-eft").expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser() / "edge-eft"
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "edge-eft"


def completions(text: str) -> Iterator[tuple[str, int, str]]:
    """What can follow `text` in a command: (word, how much of it is typed, what it does)."""
    command, space, argument = text.partition(" ")
    if not space and text.startswith("/"):
        yield from ((w, len(text), what) for w, (_, what) in COMMANDS.items() if w.startswith(text))
    elif command == "/set" and " " not in argument:
        for name, setting in SETTINGS.items():
            if name.startswith(argument):
                yield name, len(argument), setting.help


def terminal_reader() -> Callable[[str], str]:
    """Read lines with history, editing and completion; EOFError to leave."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    class Commands(Completer):
        def get_completions(self, document: Document, _: CompleteEvent) -> Iterator[Completion]:
            for word, typed, what in completions(document.text_before_cursor):
                yield Completion(word, -typed, display_meta=what)

    keys = KeyBindings()

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=EOFError)

    history: History = InMemoryHistory()
    with contextlib.suppress(OSError):
        state_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
        history = FileHistory(str(state_dir() / "history"))
    session: PromptSession[str] = PromptSession(
        history=history, completer=Commands(), key_bindings=keys
    )
    return session.prompt


def plain_reader(_: str) -> str:
    """Read a line from a pipe; EOFError at its end."""
    if not (line := sys.stdin.readline()):
        raise EOFError
    return line.removesuffix("\n")


def read_entry(read: Callable[[str], str]) -> str:
    """One line, or what stands between two \"\"\" (then with a line end before it)."""
    line = read("› ")
    if not line.lstrip().startswith('"""'):
        return line
    lines = [line.lstrip()[3:]]
    with contextlib.suppress(EOFError):
        while not lines[-1].rstrip().endswith('"""'):
            lines.append(read("… "))
    return "\n" + "\n".join(lines).rstrip().removesuffix('"""')


def talk_with(emulator: Emulator, conversation: Conversation) -> None:
    """Chat until /bye, the end of the input, or Ctrl-C at the prompt or twice in a reply."""
    chat = Chat(emulator, conversation)
    read: Callable[[str], str] = plain_reader
    if sys.stdin.isatty() and sys.stdout.isatty():
        read = terminal_reader()
        talk(f"{emulator.recipe.name}: /help lists the commands, Ctrl-D leaves")
    with contextlib.suppress(EOFError):
        while True:
            entry = read_entry(read)
            if entry.strip() and not chat.handle(entry):
                return
