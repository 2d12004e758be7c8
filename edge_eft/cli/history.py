"""What was typed in the chat, kept for the next one. Where it cannot be kept, the chat goes on."""

from __future__ import annotations

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from ..files.plain_text import reason
from ..system import state_dir
from .terminal import talk


class KeptHistory(FileHistory):
    """Lines in a file; `lost` is why one could not be kept, for the chat to tell."""

    lost: Exception | None = None

    def store_string(self, string: str) -> None:
        """Add a line to the file; a full disk is no error here."""
        try:
            super().store_string(string)
        except OSError as error:
            self.lost = error
        except UnicodeEncodeError:  # half a character was typed: the chat refuses the line, too
            pass


def open_history() -> History:
    """Return the history in the user's state directory; without one, that of this chat alone."""
    try:
        place = state_dir()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(place / "history", "a+b"):  # it can be read and written
            return KeptHistory(str(place / "history"))
    except OSError as error:
        tell(error)
        return InMemoryHistory()


def tell(error: Exception) -> None:
    """Say that no history is kept, and why."""
    talk(f"no history is kept: {reason(error)}; EDGE_EFT_HOME names another directory")
