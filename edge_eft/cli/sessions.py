"""Kept conversations: a file for each, with a line of JSON for every event, read back by replaying.

A file begins with the first message and is only ever appended to (`keeper` does that), so that
whatever ends a chat costs no more than its last moment. It knows nothing of models.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import EdgeEftError, SessionError
from ..files.plain_text import read_regular, reason
from ..files.private_files import check_directory
from ..system import state_dir
from ..text.messages import check_messages, plain_copy

VERSION = 1
_MAX_BYTES = 64 << 20
_ID = re.compile(r"\d{8}-[a-z]{4}")
_FIGURES = ("finish_reason", "tokens", "tokens_per_second", "drafts_tested", "drafts_accepted")


@dataclass
class Session:
    """A conversation as its events have made it so far.

    Attributes:
        id: such as "20261128-kqzm".
        begun: when, in ISO 8601.
        recipe: the name to show.
        models: what names the models on the command line: "recipe", or "base", "tuned" ….
        settings, system, turns: as a `Conversation` has them.
        figures: index of a turn → what the reply took.
        cut: whether the last turn is a reply that was not ended.
        n_damaged: lines of the file that were left out.
    """

    id: str = ""
    begun: str = ""
    recipe: str = ""
    models: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    turns: list[dict[str, str]] = field(default_factory=list)
    figures: dict[int, dict[str, Any]] = field(default_factory=dict)
    cut: bool = False
    n_damaged: int = 0
    _pieces: list[str] | None = None  # of the reply that is being drawn
    _turns_before: int = 0  # it

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take the next event. Raises KeyError, TypeError, ValueError or PromptError if it is none.

        An event that is none changes nothing.
        """
        name = event["event"]
        if name == "piece":
            if self._pieces is None or not isinstance(event["text"], str):
                raise ValueError("a piece of no reply")
            self._pieces.append(event["text"])
            return
        change = getattr(self, f"_take_{name}", None)
        if change is None:
            raise ValueError(f"no event is called {name!r}")
        change(event)

    def end_reply(self, event: Mapping[str, Any] | None = None) -> None:
        """Make a turn of what has come of a reply; without anything, turns stay as they were."""
        pieces, self._pieces = self._pieces, None
        text = "".join(pieces or ())
        if text.strip():
            self._keep(self._turns_before)
            self.turns.append({"role": "assistant", "content": text})
            self.cut = event is None
            if event is not None:
                figures = {key: event[key] for key in _FIGURES if _is_figure(event.get(key))}
                self.figures[len(self.turns) - 1] = figures

    def _keep(self, n: int) -> None:
        self.turns = self.turns[:n]
        self.figures = {i: figures for i, figures in self.figures.items() if i < n}
        self.cut = False

    def _take_begin(self, event: Mapping[str, Any]) -> None:
        if _of(int, event["version"]) > VERSION:
            raise SessionError("it was written by a later edge-eft; update this one")
        if not _ID.fullmatch(event["id"]) or self.id:
            raise ValueError("not a beginning")
        self._take_models(event)
        self._take_settings(event)
        self._take_system(event)
        self.id, self.begun = event["id"], _of(str, event["at"])

    def _take_models(self, event: Mapping[str, Any]) -> None:
        recipe, models = _of(str, event["recipe"]), _of(dict, event["models"])
        self.end_reply()
        self.recipe, self.models = recipe, models

    def _take_settings(self, event: Mapping[str, Any]) -> None:
        settings = _of(dict, event["settings"])
        self.end_reply()
        self.settings = settings

    def _take_system(self, event: Mapping[str, Any]) -> None:
        system = event["system"]
        if system is not None:
            _of(str, system)
        self.end_reply()
        self.system = system

    def _take_keep(self, event: Mapping[str, Any]) -> None:
        n = _of(int, event["n"])
        self.end_reply()
        self._keep(n)

    def _take_turn(self, event: Mapping[str, Any]) -> None:
        turns = check_messages([{"role": event["role"], "content": event["content"]}])
        self.end_reply()
        self.turns += turns
        self.cut = False

    def _take_reply(self, event: Mapping[str, Any]) -> None:
        n = _of(int, event["after"])
        self.end_reply()
        self._pieces, self._turns_before = [], n

    def _take_end(self, event: Mapping[str, Any]) -> None:
        if self._pieces is None:
            raise ValueError("the end of no reply")
        self.end_reply(event)


def _of(kind: type, value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not isinstance(value, kind) or (kind is int and not whole):
        raise TypeError(f"{value!r:.40} is of another kind")
    return value


def _is_figure(value: Any) -> bool:
    return isinstance(value, str | int | float)


# -- files -----------------------------------------------------------------------------------


def directory() -> Path:
    """Return where conversations are kept. Raises OSError if no home directory is known."""
    return state_dir() / "sessions"


def paths() -> list[Path]:
    """Return the files of all kept conversations, that which was used last first.

    Raises SessionError if the directory is there and cannot be read, or is not to be trusted.
    """
    try:
        place = directory()
        check_directory(place)
        found = [entry for entry in os.scandir(place) if _ID.fullmatch(Path(entry.name).stem)]
        used = {}
        for entry in found:
            with contextlib.suppress(FileNotFoundError):  # removed just now
                used[Path(entry.path)] = entry.stat(follow_symlinks=False).st_mtime_ns
    except FileNotFoundError:
        return []
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise SessionError(f"{where}no conversations can be read ({reason(error)})") from None
    files = (path for path in used if path.suffix == ".jsonl")
    return sorted(files, key=lambda path: (used[path], path.name), reverse=True)


def read(path: Path) -> Session:
    """Return the conversation in a file; a last line that is torn is no fault.

    Raises SessionError if it cannot be read, or is not a conversation at all.
    """
    try:
        data = read_regular(path, _MAX_BYTES, follow=False)
    except OSError as error:
        why = "it is a link" if path.is_symlink() else reason(error)
        raise SessionError(f"{path}: cannot be read ({why})") from None
    session = Session()
    *lines, torn = data.split(b"\n")
    for i, line in enumerate([*lines, torn] if torn or not lines else lines):
        try:
            session.apply(plain_copy(json.loads(line), "a line"))
        except (ValueError, KeyError, TypeError, RecursionError, EdgeEftError) as error:
            if i == 0:
                later = str(error) if isinstance(error, SessionError) else ""
                why = later or "it is not a conversation that edge-eft keeps"
                raise SessionError(f"{path}: cannot be read ({why})") from None
            session.n_damaged += i < len(lines)
    session.end_reply()
    if session.id != path.stem:
        raise SessionError(f"{path}: cannot be read (it is {session.id} under another name)")
    return session


def matching(word: str) -> list[Path]:
    """Return the files of the conversations whose id, or its letters alone, begin with `word`.

    Raises SessionError as `paths` does.
    """
    known = {path.stem: path for path in paths()}
    if word in known:
        return [known[word]]
    return [
        path
        for name, path in known.items()
        if word and (name.startswith(word) or name.partition("-")[2].startswith(word))
    ]


def find(word: str) -> Path:
    """Return the file of the one conversation that is `matching` a word.

    Raises SessionError if there is none, or more than one.
    """
    found = matching(word)
    if not found:
        raise SessionError(f"no conversation is kept as {word!r:.60}; `edge-eft log` lists them")
    if len(found) > 1:
        names = ", ".join(path.stem for path in found[:3]) + ", …" * (len(found) > 3)
        raise SessionError(f"{word!r:.60} could be {names}; type more of it")
    return found[0]


def newest(fits: Callable[[Session], bool] = lambda _: True) -> Path | None:
    """Return the conversation that was used last, of those that can be read and `fits` takes."""
    for path in paths():
        with contextlib.suppress(SessionError):
            session = read(path)
            if session.turns and fits(session):
                return path
    return None


def sessions(files: Sequence[Path], problems: list[str]) -> Iterator[tuple[Path, Session]]:
    """Yield the conversations in files that have a message; why others cannot be read is added."""
    for path in files:
        try:
            session = read(path)
        except SessionError as error:
            problems.append(str(error))
            continue
        if session.turns:
            yield path, session


def first_words(session: Session) -> str:
    """Return how a conversation begins: its first message of a user."""
    asked = (turn["content"] for turn in session.turns if turn["role"] == "user")
    return next(asked, session.turns[0]["content"] if session.turns else "")
