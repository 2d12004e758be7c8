"""Two checkouts in turns in one run: what a change does to the time per token.

    .venv/bin/python tools/lab/pairs.py OTHER_CHECKOUT --pairs 30 --mode steps

Three worker processes of the same Python are started: one of this checkout, and two of the other,
whose ratio (A/A) says what noise makes of 1. All answer the same questions of the atlas family,
batch by batch and in an order that is drawn each time; greedy and without drafts. Whatever else
the machine does hits all alike, so the checkouts are compared by the ratios of the batches.

A worker uses the public API alone, so that older checkouts run as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
N_QUESTIONS = 20  # of a batch
MAX_TOKENS = 24
THIS, OTHER, AGAIN = "this", "other", "other, again"


class Worker:
    """A process that answers questions by the code of one checkout."""

    def __init__(self, checkout: Path, mode: str) -> None:
        self._checkout = checkout
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(checkout), "--mode", mode, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )
        package = Path(self._read())
        if not package.is_relative_to(checkout):
            self.close()
            raise click.ClickException(f"{checkout}: has no edge_eft; {package} was imported")

    def answer(self, questions: Sequence[str]) -> dict[str, float]:
        """Return the tokens of the replies, and the wall and CPU seconds that were counted."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(questions) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"{self._checkout}: its worker ended with no answer")
        return json.loads(line)

    def close(self) -> None:
        """Let it end: there are no more questions."""
        self._process.communicate()


def work(mode: str) -> None:
    """Answer batches of questions from stdin, a line of JSON each, until it ends."""
    import edge_eft

    out, sys.stdout = sys.stdout, sys.stderr  # nothing else goes there
    with edge_eft.Emulator.load("atlas") as emulator:
        print(json.dumps(edge_eft.__file__), file=out, flush=True)
        for line in sys.stdin:
            counted = {"tokens": 0, "wall": 0.0, "cpu": 0.0}
            for question in json.loads(line):
                answer(emulator, question, mode, counted)
            print(json.dumps(counted), file=out, flush=True)


def answer(emulator: Any, question: str, mode: str, counted: dict[str, float]) -> None:
    """Answer one question, and add what it took to `counted`."""
    from edge_eft import Request

    request = Request(
        [{"role": "user", "content": question}], temperature=0.0, draft=0, max_tokens=MAX_TOKENS
    )
    if mode == "steps":
        emulator.submit(request)
        steps = emulator.step()
    wall, cpu = perf_counter(), process_time()
    if mode == "whole":
        emulator.submit(request)
        steps = emulator.step()
        counted["tokens"] += len(steps)
    while not steps[-1].finish_reason:
        steps = emulator.step()
        counted["tokens"] += len(steps)
    counted["wall"] += perf_counter() - wall
    counted["cpu"] += process_time() - cpu


def compare(other: Path, n_pairs: int, mode: str) -> dict[str, list[dict[str, float]]]:
    """Return worker → what it counted, batch by batch; a first batch is not among them."""
    held_out = json.loads((ROOT / "models" / "atlas" / "heldout.json").read_text("utf-8"))
    questions = cycle([entry["question"] for entry in held_out["questions"]])
    found: dict[str, list[dict[str, float]]] = {THIS: [], OTHER: [], AGAIN: []}
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(contextlib.closing(Worker(checkout, mode)))
            for name, checkout in ((THIS, ROOT), (OTHER, other), (AGAIN, other))
        }
        for number in range(1 + n_pairs):
            batch = list(islice(questions, N_QUESTIONS))
            for name in random.sample(list(workers), len(workers)):
                counted = workers[name].answer(batch)
                if number:
                    found[name].append(counted)
    return found


def as_table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the ratios of time per token, with their intervals of 95 %, and the times."""
    sys.path.insert(0, str(ROOT))
    from edge_eft.bench.report import quartiles, ratio

    def per_token(name: str, clock: str) -> list[float]:
        return [counted[clock] / counted["tokens"] for counted in found[name]]

    clocks = {"wall": "wall clock", "cpu": "CPU time"}
    lines = [f"{'time per token':<28}" + "".join(f"{text:<26}" for text in clocks.values())]
    for title, above in (("this / other", THIS), ("other / other (A/A)", AGAIN)):
        cells = (ratio(per_token(above, clock), per_token(OTHER, clock)) for clock in clocks)
        texts = (f"{c['median']:.3f} ({c['low']:.3f} … {c['high']:.3f})" for c in cells)
        lines.append(f"{title:<28}" + "".join(f"{text:<26}" for text in texts))
    for name in found:
        medians = (1e6 * quartiles(per_token(name, clock))[0] for clock in clocks)
        lines.append(f"{name:<28}" + "".join(f"{f'{time:,.0f} µs':<26}" for time in medians))
    pairs = zip(found[THIS], found[OTHER], strict=True)
    unequal = sum(ours["tokens"] != theirs["tokens"] for ours, theirs in pairs)
    if unequal:
        lines.append(f"replies differ in length in {unequal} of {len(found[THIS])} batches")
    return "\n".join(line.rstrip() for line in lines)


@click.command(context_settings={"show_default": True})
@click.argument("other", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pairs", type=click.IntRange(2), default=30, help="Batches that count.")
@click.option(
    "--mode",
    type=click.Choice(["whole", "steps"]),
    default="whole",
    help="Count whole replies, prompt included, or only the steps after the first.",
)
@click.option("--worker", is_flag=True, hidden=True)
def command(other: Path, pairs: int, mode: str, worker: bool) -> None:
    """Compare the time per token of this checkout with that of the checkout OTHER."""
    if worker:
        work(mode)
    else:
        click.echo(as_table(compare(other.resolve(), pairs, mode)))


if __name__ == "__main__":
    command()
