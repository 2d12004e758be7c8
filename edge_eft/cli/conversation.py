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

from ..engine.request import Request
from ..engine.settings import SETTINGS, request_for
from ..errors import PromptError, RequestError
from ..files.plain_text import decode, read_regular, reason
from ..system import at_home
from ..text.messages import check_messages
from ..validate import did_you_mean
from .terminal import one_line

_MAX_BYTES = 8 << 20  # of a saved chat
_DIALS = [*dict.fromkeys([*SETTINGS, "stop"])]
_NAME_VALUE = re.compile(r"([^\s=]*)(?:\s*=\s*|\s+|$)(.*)", re.DOTALL)


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
        name, text = _NAME_VALUE.fullmatch(argument.strip()).groups()  # type: ignore[union-attr]
        name = name.replace("-", "_")
        if name not in _DIALS:
            near = did_you_mean(name, _DIALS)
            raise RequestError(f"there is no setting {name!r}{near}; /set lists them")
        if text:
            changed = {key: value for key, value in self.settings.items() if key != name}
            if text != "off":
                changed[name] = self._read_value(name, text)
            self.check(changed)
            self.settings = changed
        return f"{name} is {self._value(name)}"

    def _read_value(self, name: str, text: str) -> Any:
        """Return the value that `text` gives a setting; stop strings add to those there are."""
        if name == "stop":
            return [*self.settings.get("stop", ()), *_quoted(text)]
        try:
            return SETTINGS[name].read(text)
        except ValueError:
            kind = "a whole number" if SETTINGS[name].read is int else "a number"
            raise RequestError(f"{name} is {text!r}; it must be {kind}") from None

    def _value(self, name: str) -> str:
        if name == "stop":
            texts = self.settings.get("stop", ())
            return " ".join(json.dumps(text, ensure_ascii=False) for text in texts) or "off"
        defaults = {"alpha": 1.0, "seed": "another each time"}
        default = defaults.get(name, getattr(Request(""), name, None))
        value = self.settings.get(name, default)
        if name == "chat_template_kwargs":
            return json.dumps(value, ensure_ascii=False) if value else "off"
        if isinstance(value, dict):
            return ",".join(f"{delta}={weight:g}" for delta, weight in value.items())
        if isinstance(value, float):
            value += 0.0  # −0.0 is 0
        return "off" if value is None else str(value)

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
        self.turns = [dict(turn) for turn in turns]

    def up_to_last_message(self) -> Conversation:
        """Return a copy that ends with the last user message."""
        turns = list(self.turns)
        while turns and turns[-1]["role"] != "user":
            turns.pop()
        return replace(self, turns=turns)

    def save(self, argument: str) -> str:
        """Write a JSON file, whole or not at all; only a saved chat is overwritten."""
        path = _path(argument, "/save")
        content = {"system": self.system, "settings": self.settings, "messages": self.turns}
        try:
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            if os.path.lexists(path):
                self._read(path)
            temporary = path.with_name(f".edge-eft-{secrets.token_hex(8)}")
            try:
                with open(temporary, "x", encoding="utf-8") as file:
                    file.write(text)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except RequestError:
            raise RequestError(
                f"{path} exists and is not a saved chat; choose a new name"
            ) from None
        except (OSError, ValueError) as error:
            raise RequestError(f"{path}: cannot be written ({reason(error)})") from None
        return f"saved {len(self.turns)} messages to {one_line(str(path))}"

    def load(self, argument: str) -> str:
        """Take over a saved conversation; an error changes nothing."""
        path = _path(argument, "/load")
        self.take_over(*self._read(path))
        return f"loaded {len(self.turns)} messages from {one_line(str(path))}"

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
