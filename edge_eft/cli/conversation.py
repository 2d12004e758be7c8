"""What was said and how replies are drawn: a conversation, which needs no model.

Saved as JSON, whole or not at all.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from ..engine.request import Request
from ..engine.settings import REPLACES, SETTINGS, request_for
from ..errors import PromptError, RequestError
from ..files.plain_text import decode, read_regular, reason
from ..system import at_home
from ..text.messages import check_messages
from ..validate import did_you_mean
from .terminal import counted, one_line

_MAX_BYTES = 8 << 20  # of a saved chat
_DIALS = [*dict.fromkeys([*SETTINGS, "stop"])]
_ELSEWHERE = {  # names of ollama's, llama-cli's and mlx-lm's
    "temp": "temperature",
    "num_predict": "max_tokens",
    "n_predict": "max_tokens",
    "n": "max_tokens",
    "repeat_penalty": "repetition_penalty",
}
_NAME_VALUE = re.compile(r"([^\s=]*)(?:\s*=\s*|\s+|$)(.*)", re.DOTALL)


@dataclass
class Conversation:
    """What was said and how replies are drawn.

    Attributes:
        deltas: the recipe's: name → weight.
        files: where it was saved to or loaded from, and may be saved to again.
    """

    deltas: Mapping[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    turns: list[dict[str, str]] = field(default_factory=list)
    files: set[Path] = field(default_factory=set, compare=False)

    def __post_init__(self) -> None:
        self.check(self.settings)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise RequestError if these settings do not suit the recipe."""
        request = request_for("", settings)
        request.weights.coefficients(self.deltas)
        if request.conservative is not None:
            request.weights.conservative_role(self.deltas)

    def request(self, text: str | None = None) -> Request:
        """Return the request for the reply that is due, or for the one that `text` would get."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        new = [{"role": "user", "content": text}] if text is not None else []
        return request_for([*system, *self.turns, *new], self.settings)

    def say(self, role: str, content: str) -> None:
        """Add a turn."""
        self.turns.append({"role": role, "content": content})

    def take_back(self) -> bool:
        """Drop the last reply. Returns False if no message is then left to reply to."""
        if self.turns and self.turns[-1]["role"] == "assistant":
            self.turns.pop()
        return bool(self.turns)

    def set(self, argument: str) -> str:
        """Carry out `NAME VALUE` or `NAME=VALUE`, `NAME off`, `NAME` or nothing.

        Returns what to tell. An error changes nothing.
        """
        if not argument.strip():
            return "\n".join(f"{name:<22}{self._value(name)}" for name in _DIALS)
        word, text = _NAME_VALUE.fullmatch(argument.strip()).groups()  # type: ignore[union-attr]
        name = setting_named(word)
        if name is None:
            near = did_you_mean(word, _DIALS)
            raise RequestError(f"there is no setting {word!r}{near}; /set lists them")
        replaced = []
        if text:
            changed = {key: value for key, value in self.settings.items() if key != name}
            if text != "off":
                changed[name] = self._read_value(name, text)
                replaced = [other for other in REPLACES.get(name, ()) if other in changed]
                changed = {key: value for key, value in changed.items() if key not in replaced}
            self.check(changed)
            self.settings = changed
        instead = f", in place of {' and '.join(replaced)}" if replaced else ""
        return f"{name} is {self._value(name)}{instead}"

    def _read_value(self, name: str, text: str) -> Any:
        """Return the value that `text` gives a setting; stop strings add to those there are."""
        from .options import kind_of
        from .refusals import wanted

        if name == "stop":
            return [*self.settings.get("stop", ()), *_quoted(text)]
        kind, seen = kind_of(name), repr(text)
        try:
            value = SETTINGS[name].read(text)
            seen = repr(value)
            ranged = isinstance(kind, click.IntRange | click.FloatRange)
            return kind.convert(value, None, None) if ranged else value
        except (ValueError, click.BadParameter):
            raise RequestError(f"{name} is {seen:.60}; it must be {wanted(kind)}") from None

    def _value(self, name: str) -> str:
        if name == "stop":
            return in_words(self.settings.get("stop", ())) or "off"
        defaults = {"alpha": 1.0, "seed": "another each time"}
        default = defaults.get(name, getattr(Request(""), name, None))
        value = self.settings.get(name, default)
        if name == "chat_template_kwargs" and not value:
            return "off"
        return in_words(value)

    def set_system(self, argument: str) -> str:
        """Set, drop or show the system message. Returns what to tell."""
        if argument:
            self.system = None if argument == "off" else argument
        return f"system message: {self.system or 'none'}"

    def take_over(
        self, settings: Mapping[str, Any], system: str | None, turns: Sequence[Mapping[str, str]]
    ) -> None:
        """Go on with another conversation; settings that do not suit the recipe change nothing."""
        self.check(settings)
        self.settings, self.system = dict(settings), system
        self.turns, self.files = [dict(turn) for turn in turns], set()

    def clear(self) -> None:
        """Begin another conversation, with the same settings."""
        self.turns, self.files = [], set()

    def up_to_last_message(self) -> Conversation:
        """Return a copy that ends with the last user message."""
        turns = list(self.turns)
        while turns and turns[-1]["role"] != "user":
            turns.pop()
        return replace(self, turns=turns)

    def save(self, argument: str, *, over_another: bool = False) -> str:
        """Write a JSON file, whole or not at all.

        Only a saved chat is overwritten, and only one that this conversation goes on from, unless
        it is to be written `over_another`.
        """
        path = _path(argument, "/save")
        if not self.turns:
            raise RequestError("nothing is said yet, so there is nothing to save")
        if os.path.lexists(path):
            self._check_replaceable(path, over_another=over_another)
        content = {"system": self.system, "settings": self.settings, "messages": self.turns}
        try:
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            temporary = path.with_name(f".edge-eft-{secrets.token_hex(8)}")
            try:
                with open(temporary, "x", encoding="utf-8") as file:
                    file.write(text)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            raise RequestError(f"{path}: cannot be written ({reason(error)})") from None
        self.files.add(path.resolve())
        return f"saved {counted(len(self.turns), 'message')} to {one_line(str(path))}"

    def _check_replaceable(self, path: Path, *, over_another: bool) -> None:
        """Raise RequestError if what is there would be lost."""
        try:
            _, _, turns = self._read(path)
            is_own = path.resolve() in self.files or self.turns[: len(turns)] == turns
        except RequestError:
            raise RequestError(
                f"{path} exists and is not a saved chat; choose a new name"
            ) from None
        if not (over_another or is_own):
            raise RequestError(
                f"{path} holds another conversation of {counted(len(turns), 'message')}; choose "
                f"another name, or /save! {path} replaces it"
            )

    def load(self, argument: str) -> str:
        """Take over a saved conversation; an error changes nothing."""
        path = _path(argument, "/load")
        self.take_over(*self._read(path))
        self.files.add(path.resolve())
        return f"loaded {counted(len(self.turns), 'message')} from {one_line(str(path))}"

    def _read(self, path: Path) -> tuple[dict[str, Any], str | None, list[dict[str, str]]]:
        try:
            content = json.loads(decode(read_regular(path, _MAX_BYTES)))
            json.dumps(content, ensure_ascii=False).encode()  # half characters cannot be saved
            settings, system, turns = (content[k] for k in ("settings", "system", "messages"))
            if not isinstance(settings, dict) or not isinstance(system, str | None):
                raise TypeError
            return settings, system, check_messages(turns) if turns else []
        except OSError as error:
            raise RequestError(f"{path}: cannot be read ({reason(error)})") from None
        except (ValueError, KeyError, TypeError, RecursionError, PromptError):
            raise RequestError(f"{path} is not a saved chat; /save writes one") from None


def setting_named(word: str) -> str | None:
    """Return the setting that a word means, here or in other programs; None: there is none.

    Raises RequestError if it means what cannot change in a chat.
    """
    name = word.replace("-", "_").lower()
    if name in ("n_ctx", "num_ctx", "ctx", "ctx_size"):
        raise RequestError(
            "the context's length is fixed while a chat runs; leave, and: edge-eft chat --continue "
            "--n-ctx N"
        )
    name = _ELSEWHERE.get(name, name)
    return name if name in _DIALS else None


def in_words(value: Any) -> str:
    """Return the value of a setting as it is typed."""
    if isinstance(value, Mapping):
        if all(isinstance(each, float) for each in value.values()):  # a mix
            return ",".join(f"{name}={weight:g}" for name, weight in value.items())
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return " ".join(json.dumps(text, ensure_ascii=False) for text in value)
    if isinstance(value, float):
        return str(value + 0.0)  # −0.0 is 0
    return "off" if value is None else str(value)


def _quoted(text: str) -> list[str]:
    """Return the texts of '"a" "b"', as JSON writes them; what has no quotes is one text."""
    found: list[str] = []
    decoder = json.JSONDecoder()
    while text.startswith('"'):
        try:
            value, end = decoder.raw_decode(text)
            value.encode()  # half a character
        except ValueError:
            raise RequestError(f'stop is {text!r:.60}; write it as in "###" or "\\n\\n"') from None
        found.append(value)
        text = text[end:].strip()
    return [*found, *([text] if text else [])]


def _path(argument: str, command: str) -> Path:
    if not argument:
        raise RequestError(f"{command} needs a file, as in {command} chat.json")
    try:
        return at_home(argument)
    except FileNotFoundError as error:
        raise RequestError(f"{command}: {error.strerror}; write the path in full") from None
