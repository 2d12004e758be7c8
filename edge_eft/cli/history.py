"""What was typed in the chat, kept for the next one. Where it cannot be kept, the chat goes on.

Commands are recalled in the same chat, and not kept.
"""

from __future__ import annotations

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from ..files.plain_text import reason
from ..files.private_files import open_private, private_directory
from ..system import state_dir
from .terminal import talk


class KeptHistory(FileHistory):
    """Messages in a file; `lost` is why one could not be kept, for the chat to tell."""

    lost: Exception | None = None

    def store_string(self, string: str) -> None:
        """Add a message to the file; a full disk is no error here."""
        if string.startswith("/"):
            return
        try:
            super().store_string(string)
        except OSError as error:
            self.lost = error
        except UnicodeEncodeError:  # half a character was typed: the chat refuses the line, too
            pass


def open_history(*, kept: bool = True) -> History:
    """Return the history in the user's state directory; without one, that of this chat alone.

    Args:
        kept: otherwise nothing is read or written, either.
    """
    if not kept:
        return InMemoryHistory()
    try:
        place = state_dir()
        if not place.is_dir():
            private_directory(place)
        open_private(place / "history", "a+").close()  # it can be read and written
        return KeptHistory(str(place / "history"))
    except OSError as error:
        tell(error)
        return InMemoryHistory()


def tell(error: Exception) -> None:
    """Say that no history is kept, and why."""
    talk(f"no history is kept: {reason(error)}; EDGE_EFT_HOME names another directory")
