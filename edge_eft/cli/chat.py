"""`edge-eft chat`: slash commands and replies.

`Chat` answers one entry after another from an emulator's steps, in a `Conversation` that a `Keeper`
writes down. `talk_with` reads the entries by `chat_terminal`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from ..engine.reply import ReplyBuilder
from ..errors import EdgeEftError, PromptError, RequestError
from .attachments import put_in, unmet
from .chat_commands import COMMANDS, Totals, carry_out, meant
from .chat_terminal import plain_reader, read_entry, reply_writer, silent_keys, terminal_reader
from .command import OUTPUT, TALK, option
from .command import command as new_command
from .keeper import Keeper
from .log import complete_session
from .models import Models
from .options import model_options, recipe_argument, setting_options, system_option
from .replies import ending, report, stream
from .resume import NEWEST
from .terminal import counted, edited, one_line, talk

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from ..engine.request import Request
    from .conversation import Conversation

_LEAVING = ("exit", "quit")  # a space first makes them text, as it does a command
_SHOWN_LINES = 10  # of what was written in the editor
_OF_WEIGHTS = ("alpha", "beta", "mix", "only")


@new_command("chat")
@recipe_argument
@model_options
@system_option
@option(
    "--continue",
    "-c",
    "wish",
    group=TALK,
    is_flag=False,
    flag_value=NEWEST,
    metavar="[ID]",
    shell_complete=complete_session,
    help="Go on with a kept conversation; without ID, the last one (with the recipe, if named).",
)
@option(
    "--no-log",
    is_flag=True,
    key=True,
    group=TALK,
    help="Keep neither the conversation nor what is typed.",
)
@setting_options
@option(
    "--plain",
    is_flag=True,
    key=True,
    group=OUTPUT,
    help="Show replies as they are: no Markdown, no wrapping.",
)
def chat(
    models: Models,
    words: tuple[str, ...],
    system: str | None,
    settings: dict[str, Any],
    wish: str | None,
    no_log: bool,
    plain: bool,
) -> None:
    """Talk with the emulation; /help there lists the commands.

    Ctrl-C stops a reply and keeps what came of it; a second one leaves. Settings can be changed
    while talking (/set alpha 0.8). Reads plain lines if stdin is not a terminal. Conversations are
    kept as they go, on this machine alone: `edge-eft log` lists, shows and deletes them.

    \b
    Examples:
      edge-eft chat atlas
      edge-eft chat atlas --alpha 0.7 --temperature 0
      edge-eft chat --continue
    """
    from . import resume
    from .conversation import Conversation

    with Keeper(kept=not no_log) as keeper:
        session = None
        if wish is not None:
            session, models, words = resume.resume(wish, models, words, keeper)
        recipe = resume.recipe_of(session, models, words)
        keeper.recipe = recipe.name
        keeper.models = resume.named_models(models, words, recipe.name)
        deltas = {name: delta.weight for name, delta in recipe.deltas.items()}
        if session is None:
            conversation = Conversation(deltas, settings, system)
        else:
            conversation = resume.conversation(session, deltas, settings, system)
        with models.load(recipe) as emulator:
            if session is not None:
                resume.tell(session, recipe.name)
            verbose = bool(click.get_current_context().params.get("verbose"))
            talk_with(Chat(emulator, conversation, keeper, verbose=verbose, plain=plain))


@dataclass(frozen=True)
class _Drawn:
    """How a reply of this chat was drawn, and as which tokens."""

    turn: dict[str, str]
    settings: dict[str, Any]
    system: str | None
    tokens: Sequence[int]


class Chat:
    """Answers entries from an emulator: replies on stdout, talk on stderr.

    Args:
        keeper: writes down what is said; None: nobody does.
        verbose: say what each reply took.
        plain: show replies as they are, where Markdown would be rendered.
    """

    def __init__(
        self,
        emulator: Emulator,
        conversation: Conversation,
        keeper: Keeper | None = None,
        *,
        verbose: bool = False,
        plain: bool = False,
    ) -> None:
        self.emulator: Emulator = emulator
        self.conversation: Conversation = conversation
        self.keeper = Keeper(kept=False) if keeper is None else keeper
        self.verbose, self.plain = verbose, plain
        self.totals: Totals = Totals()
        self._drawn: list[_Drawn] = []

    def handle(self, entry: str) -> bool:
        """Carry out a command or answer a message. Returns False to leave; errors are told."""
        try:
            if entry.startswith("/"):
                return self._command(*entry.strip().partition(" ")[::2])
            if entry.rstrip() in _LEAVING:
                return False
            return self._message(entry.strip())
        except EdgeEftError as error:
            talk(one_line(f"edge-eft: {error}"))
        except KeyboardInterrupt:  # while nothing was being decoded
            talk("stopped")
        return True

    def drawn(self, n: int) -> tuple[Request, str | Sequence[int], str]:
        """Return the request of the n-th last reply, the reply, and what is to be said of it.

        A reply of this chat has the settings that it was drawn with, and its tokens; one that was
        read has those of now, and its text.

        Raises RequestError if there are not so many replies.
        """
        turns = self.conversation.turns
        replies = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
        if len(replies) < n:
            there = counted(len(replies), "reply", "replies") if replies else "no replies"
            raise RequestError(f"there is no reply {n}; the conversation has {there}")
        at = replies[-n]
        asked = replace(self.conversation, turns=turns[:at])
        for drawn in self._drawn:
            if drawn.turn is turns[at]:
                asked = replace(asked, settings=drawn.settings, system=drawn.system)
                now = self.conversation.settings
                same = all(drawn.settings.get(k) == now.get(k) for k in _OF_WEIGHTS)
                return asked.request(), drawn.tokens, "" if same else "with that reply's settings"
        return asked.request(), turns[at]["content"], "with the settings of now"

    def _command(self, name: str, argument: str) -> bool:
        name, argument = meant(name, argument.strip())
        if name == "/bye":
            return False
        if name == "/edit":
            if text := edited(argument).strip():
                talk(_quoted(text))
                return self._message(text)
            talk("nothing was saved; nothing is sent")
            return True
        if name == "/regenerate":
            before = list(self.conversation.turns)
            if not self.conversation.take_back():
                raise RequestError("there is no message to reply to yet")
            return self._answer(before)
        try:
            carry_out(self, name, argument)
        finally:
            self.keeper.note(self.conversation)
        return True

    def _message(self, text: str) -> bool:
        """Say a message, with the files that it names, and answer it."""
        typed = text
        text, files = put_in(typed)
        for line in unmet(typed):
            talk(one_line(line))
        for file in files:
            talk(one_line(f"{file.name} is put into the message: {file.n_characters:,} characters"))
        turns = self.conversation.turns
        if turns and turns[-1]["role"] == "user":  # of a chat that ended before the reply came
            turns.pop()
            talk("the message before this one had no reply and is left out")
        before = list(turns)
        self.conversation.say("user", text)
        return self._answer(before)

    def _answer(self, before: list[dict[str, str]]) -> bool:
        """Stream a reply and keep what came of it; without any, go back to the turns `before`."""
        conversation, keeper, writer = self.conversation, self.keeper, reply_writer(self.plain)
        reply = None

        def show(text: str) -> None:
            writer.write(text if reply and reply.begun else text.lstrip())
            keeper.piece(text)

        presses = 0
        try:
            reply = ReplyBuilder(conversation.request())
            keeper.begin_reply(conversation)
            with silent_keys(writer.again):
                presses = stream(self.emulator, reply, show)
        except PromptError as error:
            raise PromptError(f"{error}{self._way_on(before)}") from None
        finally:
            if reply and reply.begun:
                self._take(reply)
            else:
                conversation.turns = before
            writer.close()
            if reply:
                keeper.end_reply(reply.generation(), conversation)
        self._tell(reply)
        return presses < 2

    def _take(self, reply: ReplyBuilder) -> None:
        """Make a turn of a reply, and note how it was drawn."""
        conversation = self.conversation
        conversation.say("assistant", reply.text)
        turn = conversation.turns[-1]
        settings, system = dict(conversation.settings), conversation.system
        there = {id(turn) for turn in conversation.turns}
        self._drawn = [drawn for drawn in self._drawn if id(drawn.turn) in there]
        self._drawn.append(_Drawn(turn, settings, system, reply.tokens))

    def _way_on(self, before: Sequence[Any]) -> str:
        """Return what to do where a conversation fills the context."""
        if len(before) < 2:
            return ""
        way = "; /clear forgets what was said"
        if self.keeper.id is not None:
            more = 2 * self.emulator.record.n_ctx
            way += f", edge-eft chat --continue --n-ctx {more} goes on with more room"
        return way

    def _tell(self, reply: ReplyBuilder) -> None:
        done = reply.generation()
        longest = reply.request.max_tokens
        self.totals.add(done)
        if not done.text.strip():
            talk("no reply; the message is not kept")
        elif line := report(done, longest) if self.verbose else ending(done, longest):
            talk(line)


def _quoted(text: str) -> str:
    """Return a message as it is shown above its reply."""
    lines = text.splitlines()
    more = len(lines) - _SHOWN_LINES
    shown = lines[:_SHOWN_LINES] + ([f"… ({more} more lines)"] if more > 0 else [])
    return "\n".join(f"{'› ' if i == 0 else '  '}{line}" for i, line in enumerate(shown))


def talk_with(chat: Chat) -> None:
    """Chat until /bye, the end of the input, or Ctrl-C twice at the prompt or in a reply."""
    keeper = chat.keeper
    by_hand = sys.stdin.isatty() and sys.stdout.isatty()
    read = terminal_reader(COMMANDS, kept=keeper.kept) if by_hand else plain_reader()
    if by_hand:
        name = one_line(chat.emulator.recipe.name)
        talk(f"{name}: /help lists the commands, Ctrl-D leaves")
    with contextlib.suppress(EOFError):
        while True:
            try:
                entry = read_entry(read)
                if entry.strip() and not chat.handle(entry):
                    break
            except KeyboardInterrupt:  # pressed as a reply ended
                if not by_hand:
                    raise
    if by_hand and keeper.id is not None and chat.conversation.turns:
        talk(f"kept as {keeper.id}: edge-eft chat --continue goes on with it")
