"""`edge-eft chat`: slash commands and replies.

`Chat` answers one entry after another from an emulator's steps, in a `Conversation`. `talk_with`
reads the entries by `chat_terminal`.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from ..engine.reply import ReplyBuilder, Timings
from ..errors import AbortedError, EdgeEftError, PromptError, RequestError
from ..system import mebibytes
from ..validate import did_you_mean
from .chat_terminal import plain_reader, read_entry, terminal_reader
from .command import command as new_command
from .options import (
    Models,
    model_options,
    recipe_argument,
    setting_options,
    system_option,
)
from .replies import compare, interruptible, report, side_by_side, stream, times
from .terminal import ReplyWriter, one_line, say, talk

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from .conversation import Conversation

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


@new_command("chat")
@recipe_argument
@model_options
@system_option
@setting_options
def chat(
    models: Models, words: tuple[str, ...], system: str | None, settings: dict[str, Any]
) -> None:
    """Talk with the emulation; /help there lists the commands.

    Ctrl-C stops a reply and keeps what came of it; a second one leaves. Settings can be changed
    while talking (/set alpha 0.8). Reads plain lines if stdin is not a terminal.

    \b
    Examples:
      edge-eft chat atlas
      edge-eft chat atlas --alpha 0.7 --temperature 0
    """
    from .conversation import Conversation

    recipe, _ = models.recipe(words, at_most=0)
    deltas = {name: delta.weight for name, delta in recipe.deltas.items()}
    conversation = Conversation(deltas, settings, system)
    with models.load(recipe) as emulator:
        talk_with(emulator, conversation)


class Chat:
    """Answers entries from an emulator: replies on stdout, talk on stderr."""

    def __init__(self, emulator: Emulator, conversation: Conversation) -> None:
        self.emulator = emulator
        self.conversation = conversation
        self.total = Timings()
        self.n_replies = self.n_tokens = self.n_with_prompt = self.n_held = 0

    def handle(self, entry: str) -> bool:
        """Carry out a command or answer a message. Returns False to leave; errors are told."""
        try:
            if entry.startswith("/"):
                return self._command(*entry.strip().partition(" ")[::2])
            before = list(self.conversation.turns)
            self.conversation.say("user", entry.strip())
            return self._answer(before)
        except EdgeEftError as error:
            talk(one_line(f"edge-eft: {error}"))
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
        say(told[name](argument))
        return True

    def _answer(self, before: list[dict[str, str]]) -> bool:
        """Stream a reply and keep what came of it; without any, go back to the turns `before`."""
        conversation, writer = self.conversation, ReplyWriter(for_people=True)
        reply = None

        def show(text: str) -> None:
            writer.write(text if reply and reply.begun else text.lstrip())

        presses = 0
        try:
            reply = ReplyBuilder(conversation.request())
            presses = stream(self.emulator, reply, show)
        except PromptError as error:
            forgets = "; /clear forgets what was said" if len(before) > 1 else ""
            raise PromptError(f"{error}{forgets}") from None
        finally:
            if reply and reply.begun:
                say()
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
            f"{'memory':<16}{mebibytes(self.emulator.record.memory.total)} MiB",
        ]
        for part, t in times(total).items():
            lines.append(f"{part:<16}{t:.2f} s, {t / (total.total or 1):.0%}")
        return "\n".join(lines)


def _help(_: str) -> str:
    lines = [f"{f'{name} {usage}':<24}{what}" for name, (usage, what) in COMMANDS.items()]
    lines.append('"""                     begins and ends a message of several lines')
    lines.append("Ctrl-C                  stops a reply and keeps what came of it; again: leaves")
    return "\n".join(lines)


def talk_with(emulator: Emulator, conversation: Conversation) -> None:
    """Chat until /bye, the end of the input, or Ctrl-C at the prompt or twice in a reply."""
    chat = Chat(emulator, conversation)
    by_hand = sys.stdin.isatty() and sys.stdout.isatty()
    read = terminal_reader(COMMANDS) if by_hand else plain_reader()
    if by_hand:
        name = one_line(emulator.recipe.name)
        talk(f"{name}: /help lists the commands, Ctrl-D leaves")
    with contextlib.suppress(EOFError):
        while True:
            entry = read_entry(read)
            if entry.strip() and not chat.handle(entry):
                return
