"""`python -m helpers.paced_chat REPLIES chat RECIPE …`: the command line with written replies.

REPLIES is a file of replies with NULs between them. A reply stops at its word <wait> until there
is a file `go` beside it, so that a test can press keys in mid-reply.
"""

import sys
import time
from pathlib import Path
from types import ModuleType

from edge_eft.cli.main import cli
from edge_eft.errors import AbortedError

from .fakes import BatchEmulator


class PacedEmulator(BatchEmulator):
    """Gives written replies, and waits in them where they say so."""

    def __init__(self, script):
        super().__init__(*script.read_text().split("\0"))
        self._go = script.with_name("go")

    def stream(self, request):
        for step in super().stream(request):
            if step.text == " <wait>":
                self._wait()
            else:
                yield step

    def _wait(self):
        while not self._go.exists():
            if self.interrupted.is_set():
                raise AbortedError("generation was cancelled")
            time.sleep(0.005)
        self._go.unlink()


if __name__ == "__main__":
    module = ModuleType("edge_eft.engine.emulator")  # without native code, which takes a while
    module.Emulator = PacedEmulator(Path(sys.argv[1])).load
    sys.modules[module.__name__] = module
    cli(sys.argv[2:], prog_name="edge-eft")
