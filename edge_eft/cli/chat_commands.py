"""The chat's slash commands: their names, and what each does to a `Chat`.

A command returns what is to be said on stdout, if anything. Replies are `Chat`'s own: /regenerate
and the words that leave are carried out there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import click

from ..engine.reply import Generation, Timings
from ..errors import AbortedError, RequestError
from ..system import mebibytes
from ..validate import did_you_mean
from . import resume, sessions
from .log import show_turns
from .replies import compare, interruptible, side_by_side, stoppable, times
from .terminal import Styled, counted, talk, terminal_width

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from .chat import Chat

COMMANDS = {
    "/set": ("[NAME VALUE|off]", "change a setting from the next reply on; alone: show them"),
    "/alpha": ("[A]", "strength of the delta; 0 is the base alone"),
    "/mix": ("[D=W,…|off]", "weights of the deltas, as in chat=.5,brief=.5"),
    "/compare": ("[TEXT]", "base, tuned and emulated side by side, on TEXT or the last message"),
    "/explain": ("[N]", "what the delta did to each token of the last (N-th last) reply"),
    "/edit": ("[TEXT]", "write the message in your editor ($VISUAL or $EDITOR)"),
    "/regenerate": ("", "draw the last reply anew"),
    "/system": ("[TEXT|off]", "set, drop or show the system message"),
    "/save": ("FILE", "write the conversation and its settings"),
    "/save!": ("FILE", "the same, in place of another conversation that FILE holds"),
    "/load": ("FILE", "go on with a saved conversation"),
    "/history": ("", "what was said so far"),
    "/undo": ("", "take back the last message and its reply"),
    "/sessions": ("[ID]", "list the kept conversations; with ID: go on with that one"),
    "/clear": ("", "begin a new conversation; settings stay"),
    "/stats": ("", "tokens, speed and where the time went, so far"),
    "/verbose": ("[on|off]", "a line of figures after each reply"),
    "/help": ("", "this list"),
    "/bye": ("", "leave (as Ctrl-D does)"),
}
ALIASES = {
    "/?": "/help",
    "/new": "/clear",
    "/reset": "/clear",
    "/exit": "/bye",
    "/quit": "/bye",
    "/q": "/bye",
    "/regen": "/regenerate",
    "/retry": "/regenerate",
}
_FILE_WORDS = ("/read", "/file", "/attach")
_LISTED = 10  # conversations
_DIGITS = 6  # of the number of a reply; no chat has more of them, and int() has a limit


@dataclass
class Totals:
    """What the replies of a chat took."""

    timings: Timings = field(default_factory=Timings)
    n_replies: int = 0
    n_tokens: int = 0
    n_with_prompt: int = 0
    n_held: int = 0  # tokens of the context

    def add(self, done: Generation) -> None:
        """Add a reply."""
        self.timings.add(done.timings)
        self.n_replies += 1
        self.n_held = done.prompt_tokens + len(done.tokens)
        self.n_tokens += len(done.tokens)
        self.n_with_prompt += min(done.came_with_prompt, len(done.tokens))

    def lines(self, emulator: Emulator) -> list[str]:
        """Return them for people."""
        n, seconds = self.n_replies, self.timings.after_prompt
        speed = (self.n_tokens - self.n_with_prompt) / seconds if seconds > 0 else 0.0
        lines = [
            f"{counted(n, 'reply', 'replies')}, {counted(self.n_tokens, 'token')}, "
            f"{speed:.1f} tokens/s",
            f"{'context':<16}{self.n_held} of {emulator.record.n_ctx} tokens",
            f"{'memory':<16}{mebibytes(emulator.record.memory.total)} MiB",
        ]
        parts = times(self.timings)
        parts["other"] = max(0.0, self.timings.total - sum(parts.values()))
        for part, t in parts.items():
            lines.append(f"{part:<16}{t:.2f} s, {t / (self.timings.total or 1):.0%}")
        return lines


def carry_out(chat: Chat, name: str, argument: str) -> None:
    """Carry out a command of _RUN and say what came of it. Raises as it does."""
    from .terminal import say

    said = _RUN[name](chat, argument)
    if said is not None:
        say(said)


def meant(name: str, argument: str) -> tuple[str, str]:
    """Return the command and its argument that an entry means: a setting's name is a /set of it.

    Raises RequestError if there is none; the message says what to type.
    """
    from .conversation import setting_named

    name = ALIASES.get(name, name)
    if name in COMMANDS:
        return name, argument
    if name == "/show":
        return "/set", ""
    if name in _FILE_WORDS:
        file = argument or "FILE"
        raise RequestError(f"@{file} in a message puts the file in, as in: Sum up @{file}")
    if name == "/model":
        recipe = argument or "RECIPE"
        raise RequestError(
            "the models are fixed while a chat runs; leave, and: edge-eft chat "
            f"{recipe}, or with this conversation: edge-eft chat {recipe} --continue ID "
            "(/sessions has the ID)"
        )
    if setting := setting_named(name[1:]):
        return "/set", f"{setting} {argument}".rstrip()
    near = did_you_mean(name, [*COMMANDS, *ALIASES])
    raise RequestError(
        f"there is no command {name!r}{near}; /help lists them, a space first makes it text"
    )


def help_text() -> str:
    """Return the list of commands, in columns that fit the terminal."""
    width = terminal_width()
    rows = [(f"{name} {usage}".rstrip(), what) for name, (usage, what) in COMMANDS.items()]
    rows += [
        ("/temperature 0", "a setting's name is a command: the same as /set temperature 0"),
        ('"""', "begins and ends a message of several lines"),
        ("Alt-Enter", "begins another line of the message"),
        ("@FILE", 'puts a text into the message; @"…" where its name has blanks'),
        ("Ctrl-C", "stops a reply and keeps what came of it; again: leaves"),
    ]
    formatter = click.HelpFormatter(width=width, max_width=width)
    formatter.write_dl(rows, col_max=24 if width >= 60 else 14)
    return formatter.getvalue().rstrip()


def _show_compared(chat: Chat, argument: str) -> str:
    conversation = chat.conversation
    asked = [t for t in conversation.turns if t["role"] == "user"]
    if not argument and not asked:
        raise RequestError("there is no message yet; say something, or give /compare a text")
    last = conversation.up_to_last_message() if not argument else conversation
    with interruptible(chat.emulator):
        try:
            return side_by_side(compare(chat.emulator, last.request(argument or None)))
        except AbortedError:
            return "stopped"


def _explain(chat: Chat, argument: str) -> None:
    from ..evaluate.token_shifts import token_shifts
    from .shading import show_shifts

    n = int(argument[:_DIGITS] or 1) if argument.isdecimal() or not argument else 0
    if n < 1:
        raise RequestError(f"/explain takes a number, as in /explain 2; this is {argument!r:.40}")
    request, reply, note = chat.drawn(n)
    with stoppable(chat.emulator):
        shifts = token_shifts(chat.emulator, request, reply)
    show_shifts(shifts)
    if note:
        talk(note)


def _sessions(chat: Chat, argument: str) -> str | Styled | None:
    from .console import rendered
    from .log import listing

    keeper = chat.keeper
    if argument:
        path = sessions.find(argument)
        if path.stem == keeper.id:
            raise RequestError(f"{path.stem} is this one")
        session = sessions.read(path)
        chat.conversation.check(session.settings)
        session = keeper.resume(path)
        chat.conversation.take_over(session.settings, session.system, session.turns)
        resume.tell(session, keeper.recipe)
        return None
    problems: list[str] = []
    found = [*islice(sessions.sessions(sessions.paths(), problems), _LISTED)]
    return rendered(listing(found, keeper.id)) if found else "no conversation is kept yet"


def _set(chat: Chat, argument: str) -> str:
    """Set a setting; also as ollama has it: /set parameter top_k 5, /set system TEXT …"""
    name, _, rest = argument.partition(" ")
    if name == "parameter":
        return chat.conversation.set(rest.strip())
    if name == "system":
        return chat.conversation.set_system(rest.strip())
    if argument in ("verbose", "quiet"):
        return _verbose(chat, "on" if argument == "verbose" else "off")
    return chat.conversation.set(argument)


def _verbose(chat: Chat, argument: str) -> str:
    if argument not in ("", "on", "off"):
        raise RequestError(f"/verbose is on or off, and not {argument!r:.40}")
    chat.verbose = argument == "on" if argument else not chat.verbose
    return f"figures after each reply: {'on' if chat.verbose else 'off'}"


def _mix(chat: Chat, argument: str) -> str:
    conversation = chat.conversation
    said = conversation.set(f"mix {argument}")
    if "mix" in conversation.settings:
        return said
    own = ",".join(f"{name}={weight:g}" for name, weight in conversation.deltas.items())
    return f"{said}; the recipe's weights are {own}"


def _clear(chat: Chat, _: str) -> str:
    chat.keeper.leave()
    chat.conversation.clear()
    return "the conversation is empty"


def _load(chat: Chat, argument: str) -> str:
    said = chat.conversation.load(argument)
    chat.keeper.leave()
    chat.keeper.begin(chat.conversation)  # so that --continue goes on with it
    return said


def _history(chat: Chat, _: str) -> str | None:
    conversation = chat.conversation
    if not conversation.turns:
        return "nothing is said yet"
    show_turns(conversation.system, conversation.turns)
    return None


def _undo(chat: Chat, _: str) -> str:
    conversation = chat.conversation
    left = conversation.up_to_last_message().turns[:-1]
    n = len(conversation.turns) - len(left)
    if not n:
        raise RequestError("nothing is said yet, so there is nothing to take back")
    conversation.turns = left
    return f"the last message {'is' if n == 1 else 'and its reply are'} taken back"


_RUN: dict[str, Callable[[Chat, str], str | Styled | None]] = {
    "/set": _set,
    "/alpha": lambda chat, argument: chat.conversation.set(f"alpha {argument}"),
    "/mix": _mix,
    "/compare": _show_compared,
    "/explain": _explain,
    "/system": lambda chat, argument: chat.conversation.set_system(argument),
    "/save": lambda chat, argument: chat.conversation.save(argument),
    "/save!": lambda chat, argument: chat.conversation.save(argument, over_another=True),
    "/load": _load,
    "/history": _history,
    "/undo": _undo,
    "/sessions": _sessions,
    "/clear": _clear,
    "/stats": lambda chat, _: "\n".join(chat.totals.lines(chat.emulator)),
    "/verbose": _verbose,
    "/help": lambda *_: help_text(),
}
