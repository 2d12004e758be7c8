"""What becomes of `mutants`: does the process live, and what is said?

    python -m helpers.mutant_trials --count 1200                # `edge-eft run`, a process each
    python -m helpers.mutant_trials --count 1200 --in-process   # many in a process: its deaths

from tests/, with the checkout in PYTHONPATH. Each mutant is asked for two tokens. Prints what is
not as it must be, then the counts; `--seed` takes other mutants, and `--only N` writes one of them
to `--folder` and says what it is.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.mutants import Nursery

LIMIT_S = 10.0  # of processor time, which other programs do not lengthen
PATIENCE_S = 60.0  # by the clock: a process that waits for ever uses no time
LIMIT_BYTES = 3 << 30


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    `fault` is "" if it ran, was refused in one line, or its death was told in one line.
    """

    what: str
    status: int
    seconds: float
    n_bytes: int
    said: str
    fault: str = ""

    @property
    def kind(self) -> str:
        """The fault's first word; else whether it ran, was refused, or died under supervision."""
        if self.fault or not self.status:
            return self.fault.partition(" ")[0] or "ran"
        return "supervised" if "llama.cpp died of SIG" in self.said else "refused"


def through_cli(nursery: Nursery, number: int) -> Outcome:
    """Give a mutant to `edge-eft run` in a process of its own."""
    recipe, what = nursery.make(number)
    command = [sys.executable, "-m", "edge_eft", "run", str(recipe), "the", "--max-tokens", "2"]
    # A second thread beside a busy machine costs seconds, which would be taken for a hang.
    command += ["--threads", "1"]
    errors = nursery.folder / "stderr"
    start = time.monotonic()
    with open(errors, "wb") as stderr:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
            start_new_session=True,
        )  # fmt: skip
        while (done := os.wait4(child.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() - start > PATIENCE_S:
                os.killpg(child.pid, signal.SIGKILL)
                done = os.wait4(child.pid, 0)
                break
            time.sleep(0.02)
    usage, waited = done[2], time.monotonic() - start
    seconds = usage.ru_utime + usage.ru_stime
    status = os.waitstatus_to_exitcode(done[1])
    child.returncode = status
    said = errors.read_text("utf-8", "replace")
    size = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    nursery.clear(number)
    lines = [line for line in said.splitlines() if line.startswith("edge-eft: ")]
    fault = ""
    if seconds > LIMIT_S or waited > PATIENCE_S:
        fault = "hang"
    elif size > LIMIT_BYTES:
        fault = "memory"
    elif "Traceback" in said:
        fault = "traceback"
    elif status not in (0, 2):
        fault = f"death {status}"
    elif status == 2 and not lines:
        fault = "no line"
    return Outcome(what, status, seconds, size, said.strip()[-600:], fault)


def one_process(folder: Path, seed: int, numbers: list[int]) -> None:
    """Try mutants one after another in this process; a JSON line before and after each."""
    from edge_eft import EdgeEftError, Emulator

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nursery = Nursery(folder, seed)
    for number in numbers:
        recipe, what = nursery.make(number)
        print(json.dumps({"number": number, "what": what}), flush=True)
        start, error, fault = time.process_time(), "", ""
        try:
            with Emulator.load(recipe, n_threads=1) as emulator:
                emulator.generate("the", max_tokens=2)
        except EdgeEftError as caught:
            error = str(caught)
            fault = "" if "\n" not in error else "lines"
        except Exception as caught:
            error, fault = f"{type(caught).__name__}: {caught}", "traceback"
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        seconds = time.process_time() - start
        if seconds > LIMIT_S:
            fault = "hang"
        elif size > LIMIT_BYTES:
            fault = "memory"
        outcome = Outcome(what, 2 if error else 0, seconds, size, error, fault)
        print(json.dumps(outcome.__dict__), flush=True)
        nursery.clear(number)
        if fault == "memory":
            os._exit(0)  # the figure is of the process: the next mutant gets a new one


def in_processes(folder: Path, seed: int, numbers: list[int]) -> Iterator[Outcome]:
    """Try mutants in a child, and go on after each that kills or holds it."""
    left = list(numbers)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    while left:
        command = [sys.executable, "-m", "helpers.mutant_trials", "--child", "--seed", str(seed)]
        command += ["--folder", str(folder), *map(str, left)]
        with (
            open(folder / "stderr", "wb") as stderr,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stderr, env=environment
            ) as child,
        ):
            yield from _watch(child, folder, left)


def _watch(child: subprocess.Popen[bytes], folder: Path, left: list[int]) -> Iterator[Outcome]:
    assert child.stdout is not None
    what, done, buffer = "", False, b""
    while True:
        ready, _, _ = select.select([child.stdout], [], [], PATIENCE_S)
        if not ready:
            child.kill()
            child.wait()
            yield Outcome(what, -9, PATIENCE_S, 0, "", "hang")
            left.pop(0)
            return
        chunk = os.read(child.stdout.fileno(), 1 << 16)
        if not chunk:
            break
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in map(json.loads, lines):
            if "number" in line:
                what, done = line["what"], False
            else:
                yield Outcome(**line)
                left.pop(0)
                done = True
    status = child.wait()
    last = (folder / "stderr").read_text("utf-8", "replace").strip()
    if bool(status) == done or not what:
        raise RuntimeError(f"the child itself failed: {last[-2000:]}")
    if status:
        yield Outcome(what, status, 0.0, 0, last[-300:], f"death {status}")
        left.pop(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--in-process", action="store_true")
    parser.add_argument("--only", type=int)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("numbers", nargs="*", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="mutants-"))
    if options.child:
        one_process(folder, options.seed, options.numbers)
        return
    nursery = Nursery(folder, options.seed)
    if options.only is not None:
        print(*nursery.make(options.only), sep="\n")
        return
    numbers = list(range(options.start, options.start + options.count))
    if options.in_process:
        outcomes = in_processes(folder, options.seed, numbers)
    else:
        outcomes = (through_cli(nursery, number) for number in numbers)
    counts: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        counts[outcome.kind] += 1
        if outcome.kind not in ("ran", "refused"):
            print(outcome, flush=True)
    print(dict(counts))
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
