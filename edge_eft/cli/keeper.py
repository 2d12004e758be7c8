"""Keeps a conversation as it goes, event by event, in a file of its own (see `sessions`).

What cannot be kept is told once, and the chat goes on.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.reply import Generation
from ..errors import SessionError
from ..files.plain_text import reason
from ..files.private_files import check_directory, open_private, private_directory
from . import sessions
from .sessions import VERSION, Session
from .terminal import one_line, talk

if TYPE_CHECKING:
    from .conversation import Conversation

_LETTERS = "bcdfghjkmnpqrstvwxz"  # no vowels, so that no id is a word
_MOMENT = 0.1  # seconds: pieces of a reply that come faster are written together


class Keeper:
    """Writes what changes in a conversation; a context manager.

    Attributes:
        recipe, models: as `Session` has them.
        kept: otherwise nothing is ever written.
    """

    def __init__(self, *, kept: bool = True) -> None:
        self.kept = kept
        self.recipe, self.models = "", dict[str, Any]()
        self._state = Session()
        self._file: FileIO | None = None
        self._is_new = False
        self._pieces: list[str] = []
        self._wrote_at = 0.0

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    @property
    def id(self) -> str | None:
        """Id of the conversation that is written to; None: no file is begun, or nothing is kept."""
        return self._state.id if self._file is not None else None

    def resume(self, path: Path) -> Session:
        """Return a kept conversation, to which what follows is added.

        What another chat has open is copied instead, with the first message, into a new one.

        Raises SessionError if it cannot be read; the keeper then stays where it is.
        """
        session = sessions.read(path)
        if path.stem == self.id:
            return session
        file: FileIO | None = None
        try:
            if self.kept:
                file = open_private(path, "a+")
                if not _locked(file):
                    talk(f"{path.stem} is open in another chat; this one goes on with a copy")
                    file.close()
                    file = None
            session = sessions.read(path)  # nobody else writes to it from now on
        except OSError as error:
            talk(f"{path.stem} cannot be added to ({reason(error)}); this is a copy")
        except SessionError:
            if file is not None:
                file.close()
            raise
        self.leave()
        if file is not None:
            self._file, self._state, self._is_new = file, deepcopy(session), False
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # of a line that was torn
                self._write(b"\n")
        return session

    def leave(self) -> None:
        """End what is written to: the next message begins a new file. One without any goes."""
        self._flush()
        if self._file is not None:
            if self._is_new and not self._state.turns:
                self._remove(self._state.id)
            self._close()
        self._state = Session()

    def begin(self, conversation: Conversation) -> None:
        """Write what there is of a conversation, if anything was said, into a new file."""
        if self._file is None and self.kept and conversation.turns:
            self._begin(conversation)
            self.note(conversation)

    def note(self, conversation: Conversation) -> None:
        """Write what has changed, if anything is written yet."""
        if self._file is not None:
            for event in [*self._changes(conversation)]:
                self._add(event)

    def begin_reply(self, conversation: Conversation) -> None:
        """Write what has changed, the message above all, and that a reply is being drawn.

        A reply that it takes the place of stays until a piece of it comes.
        """
        if self._file is None and self.kept:
            self._begin(conversation)
        turns = conversation.turns
        if len(turns) >= len(self._state.turns) or self._state.turns[: len(turns)] != turns:
            self.note(conversation)
        self._add({"event": "reply", "after": len(turns)})

    def piece(self, text: str) -> None:
        """Write the next piece of a reply, soon."""
        if self._file is not None and text:
            self._pieces.append(text)
            if time.monotonic() > self._wrote_at + _MOMENT:
                self._flush()

    def end_reply(self, done: Generation, conversation: Conversation) -> None:
        """Write what a reply took, and what has become of the conversation."""
        figures = {
            "finish_reason": done.finish_reason,
            "tokens": len(done.tokens),
            "tokens_per_second": round(done.tokens_per_second, 2),
            "drafts_tested": done.drafts_tested,
            "drafts_accepted": done.drafts_accepted,
        }
        self._add({"event": "end", "at": _now(), **figures})
        self.note(conversation)

    def _begin(self, conversation: Conversation) -> None:
        """Open a new file, of a name that nobody has."""
        import secrets  # not for --help: it loads a dozen modules

        try:
            place = private_directory(sessions.directory())
            while self._file is None:
                letters = "".join(secrets.choice(_LETTERS) for _ in range(4))
                name = f"{datetime.now():%Y%m%d}-{letters}"
                with contextlib.suppress(FileExistsError):
                    self._file = open_private(place / f"{name}.jsonl", "x")
            _locked(self._file)
        except OSError as error:
            self._lose(error)
            return
        self._state, self._is_new = Session(), True
        self._add(
            {"event": "begin", "version": VERSION, "id": name, "at": _now()}
            | {"recipe": self.recipe, "models": self.models}
            | {"settings": conversation.settings, "system": conversation.system}
        )
        if self._file is None:  # there was no room for the first line, and it is none without
            self._remove(name)

    def _changes(self, conversation: Conversation) -> Iterator[dict[str, Any]]:
        """Yield the events that lead from what is written to how it is."""
        state, turns = self._state, conversation.turns
        if (state.recipe, state.models) != (self.recipe, self.models):
            yield {"event": "models", "recipe": self.recipe, "models": self.models}
        if state.settings != _as_read(conversation.settings):
            yield {"event": "settings", "settings": conversation.settings}
        if state.system != conversation.system:
            yield {"event": "system", "system": conversation.system}
        same = [old == new for old, new in zip(state.turns, turns, strict=False)]
        n = same.index(False) if False in same else len(same)
        if n < len(state.turns):
            yield {"event": "keep", "n": n}
        for turn in turns[n:]:
            yield {"event": "turn", "at": _now(), **turn}

    def _add(self, event: Mapping[str, Any]) -> None:
        """Write an event, behind the pieces that wait."""
        self._flush()
        if self._file is not None:
            line = json.dumps(event)
            self._state.apply(json.loads(line))
            self._write(line.encode() + b"\n")

    def _flush(self) -> None:
        if pieces := "".join(self._pieces):
            self._pieces = []
            self._add({"event": "piece", "text": pieces})
            self._wrote_at = time.monotonic()

    def _write(self, data: bytes) -> None:
        try:
            while self._file is not None and data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Keep nothing from now on, and say so."""
        self.kept = False
        self._close()
        why = f"{reason(error)}: {error.filename}" if error.filename else reason(error)
        where = "EDGE_EFT_HOME names another directory"
        talk(one_line(f"the conversation is not kept from here on: {why}; {where}"))

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (sessions.directory() / f"{name}.jsonl").unlink()

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file, self._pieces = None, []


def delete(path: Path) -> None:
    """Remove a kept conversation. Raises SessionError if a chat has it open, or it cannot be."""
    try:
        check_directory(path.parent)
        if not path.is_symlink():
            with open_private(path, "a+") as file:
                if not _locked(file):
                    raise SessionError(f"{path.stem} is open in a chat; leave that first")
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SessionError(f"{path}: cannot be removed ({reason(error)})") from None


def _locked(file: FileIO) -> bool:
    """Lock a file until it is closed, by whatever end. Returns False if somebody else has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 40)  # the lock keeps others from reading what it is on
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return sys.platform != "win32"
    return True


def _as_read(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
