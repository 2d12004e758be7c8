"""How many calls of its own edge_eft makes, for a block of tokens, a chat message, a prompt.

    .venv/bin/python tools/lab/calls.py                     # this checkout
    PYTHONPATH=OTHER .venv/bin/python tools/lab/calls.py    # the code of another checkout

It takes the public `Emulator` and the command line, so that modules may move; only ENCODE, whose
calls are counted, goes by its name. Needs Python 3.11.

A call is a "call" event of sys.setprofile for a frame whose code lies below the package's folder:
functions, lambdas and comprehensions when they start, generators also whenever they are resumed.
What a dataclass generated ("<string>") and what other threads run do not count. A move is a pair
of consecutive calls in different files. `started` leaves out what is resumed; `functions` leaves
out comprehensions and generator expressions as well.

A block is a `step` that gives three tokens, two of them accepted drafts, after a raw prompt's own.
A message counts from its being read to the next line's being asked for; its first token is the
first write to stdout. All is greedy, so that a checkout gives the same figures again.

Commit 77c4573 was published with 491 calls and 147 moves a block, and 3,482 calls a message, 76 %
before its first token; how those were counted is not known. Here it has 394 and 113 (353 started,
249 functions), and 3,857 (3,400; 2,890), 76.8 %. Encodings are as published: 5, 10, 10, 15.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import traceback
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from click.testing import CliRunner

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind PYTHONPATH

import edge_eft

PACKAGE = str(Path(edge_eft.__file__).parent) + "/"
ENCODE = "PromptFormat.encode"
QUESTIONS = ("What is the capital of Japan?", "What is the capital of France?")


class Calls:
    """The calls inside a `with` block, in their order."""

    def __init__(self) -> None:
        self.seen: list[tuple[CodeType, int]] = []  # and where in it
        self.before_output = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.seen.append((frame.f_code, frame.f_lasti))
        elif event == "c_call" and not self.before_output and argument.__name__ == "write":
            self.before_output = len(self.seen) if argument.__self__ is sys.stdout else 0

    def encodings(self) -> int:
        """How often a prompt was encoded."""
        return sum(code.co_qualname == ENCODE for code, _ in self.seen)

    def figures(self) -> dict[str, float]:
        """Calls and moves, and the calls by narrower definitions."""
        files = [code.co_filename for code, _ in self.seen]
        # A frame starts at RESUME 0; after a yield its argument is another.
        started = [code.co_name for code, at in self.seen if code.co_code[at + 1] == 0]
        return {
            "calls": len(files),
            "moves": sum(a != b for a, b in pairwise(files)),
            "started": len(started),
            "functions": sum(name == "<lambda>" or name[0] != "<" for name in started),
        }


def own_frames() -> list[FrameType]:
    """The package's frames that are being executed."""
    frames = (frame for frame, _ in traceback.walk_stack(sys._getframe()))
    return [frame for frame in frames if frame.f_code.co_filename.startswith(PACKAGE)]


class Entries(io.BytesIO):
    """stdin for a chat, a line at a time; what comes of the second line is counted."""

    calls, n_read, reading = Calls(), 0, ()

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line, and the switch."""
        self.n_read += 1
        if self.n_read == 3:
            self.calls.__exit__()
            # What was called to ask for this line is no part of the message before it.
            for _ in set(own_frames()).difference(self.reading):
                self.calls.seen.pop()
        line = super().readline(size)
        if self.n_read == 2:
            self.reading = own_frames()
            self.calls.__enter__()
        return line

    read1 = readline  # for the text layer above, which would read everything at once


def run(*arguments: str, stdin: Any = None) -> None:
    """edge-eft in this process."""
    package = importlib.import_module("edge_eft.cli.main")
    cli = getattr(package, "cli", None) or importlib.import_module("edge_eft.cli.main.main").cli
    result = CliRunner().invoke(cli, [*arguments, "--temperature", "0"], input=stdin)
    if result.exit_code:
        raise SystemExit(f"edge-eft {' '.join(arguments)}: {result.output}")


def main() -> None:
    """Count, and print."""
    with edge_eft.Emulator.load("atlas") as emulator:
        emulator.submit(edge_eft.Request(QUESTIONS[0], temperature=0.0, draft=2, max_tokens=64))
        emulator.step()
        n_tokens = 1
        while n_tokens not in (0, 3):
            with Calls() as block:
                n_tokens = len(emulator.step())
        assert n_tokens, "no step gave three tokens"
        with Calls() as generate:
            emulator.generate([{"role": "user", "content": QUESTIONS[0]}], temperature=0.0)
    with Calls() as one:
        run("run", "atlas", QUESTIONS[0])
    with Calls() as many:
        run("run", "atlas", "--input", "-", stdin=json.dumps(QUESTIONS[0]))
    entries = Entries("".join(f"{entry}\n" for entry in (*QUESTIONS, "/bye")).encode())
    run("chat", "atlas", stdin=entries)
    sections = {"block": block.figures(), "message": entries.calls.figures()}
    share = 100 * entries.calls.before_output / len(entries.calls.seen)
    sections["message"]["percent_before_first_token"] = round(share, 1)
    asked = {"generate": generate, "run": one, "chat": entries.calls, "run_input": many}
    sections["encodings"] = {name: calls.encodings() for name, calls in asked.items()}
    for name, figures in sections.items():
        print(f"{name:<10}", ", ".join(f"{what} {n:,}" for what, n in figures.items()))
    print(json.dumps({"package": PACKAGE, **sections}))


if __name__ == "__main__":
    main()
