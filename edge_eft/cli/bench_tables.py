"""What `bench` shows people: which way is fastest, tables of the figures, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import RenderableType

from ..bench.measure import AUTO, EMULATED
from ..bench.report import BARE_SUM, BASE, quartiles
from .console import line, text
from .tables import WORDS, Column, Facts, Listing
from .terminal import counted

_LEGEND = (
    f"{EMULATED}: without drafts; {AUTO}: as run and chat draft. {BARE_SUM}: each model's decodes "
    "alone, one after the other, the most that emulation without drafts can reach. The base alone "
    "is measured twice: how far their ratio is from 1 is noise (A/A)."
)


def as_tables(
    result: Mapping[str, Any], found: Mapping[str, Sequence[float]]
) -> Iterator[RenderableType]:
    """Yield what to show, from `bench.report.as_object` and `bench.report.rates`."""
    yield line(_conclusion(result, found), "bold")
    for table in (_rates(found), _ratios(result["ratios"]), _decodes(result["decode_ms"])):
        yield text("")
        yield table
    yield text("")
    yield Facts(_facts(result))
    yield text("")
    yield text(_LEGEND, "dim")


def _conclusion(result: Mapping[str, Any], found: Mapping[str, Sequence[float]]) -> str:
    """Return in one sentence which way of emulation is the fastest here."""
    names = [EMULATED, *(f"drafts of {n}" for n in result["drafted_tps"]), AUTO]
    speeds = {name: median(found[name]) for name in names}
    best = max(speeds, key=lambda name: speeds[name])
    told = [f"{best} is fastest: {speeds[best]:,.1f} tokens/s"]
    if best != AUTO:
        told.append(f"{AUTO} reaches {speeds[AUTO]:,.1f}")
    return f"{'; '.join(told)}, {speeds[AUTO] / median(found[BASE]):.2f} × the base alone"


def _rates(found: Mapping[str, Sequence[float]]) -> Listing:
    base = quartiles(found[BASE])[0]
    table = Listing(
        Column("tokens per second", least=WORDS),
        Column("median", right=True),
        Column("quartiles"),
        Column("of base", right=True),
        run_in=True,
    )
    for name, values in sorted(found.items(), key=lambda item: median(item[1])):
        middle, low, high = quartiles(values)
        table.add(
            line(name), f"{middle:,.1f}", f"{low:,.1f} … {high:,.1f}", f"{middle / base:.2f}×"
        )
    return table


def _ratios(ratios: Mapping[str, Mapping[str, float]]) -> Listing:
    table = Listing(
        Column("ratio of rounds", least=WORDS),
        Column("median", right=True),
        Column("95 % interval"),
        run_in=True,
    )
    for name, about in ratios.items():
        interval = f"{about['low']:.3f} … {about['high']:.3f}"
        table.add(line(name), f"{about['median']:.3f}", interval)
    return table


def _decodes(decode_ms: Mapping[str, Mapping[int, float]]) -> Listing:
    """Return the milliseconds of a decode, by the tokens in it and by the model."""
    sizes = sorted({n for costs in decode_ms.values() for n in costs})
    models = (Column(name, right=True) for name in decode_ms)
    table = Listing(Column("ms per decode of", least=WORDS), *models, run_in=True)
    for n in sizes:
        cells = (f"{costs[n]:.2f}" if n in costs else "" for costs in decode_ms.values())
        table.add(counted(n, "token"), *cells)
    return table


def _facts(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names, and what there is to say of each."""
    second = result["second_turn_ttft_s"]
    length = result["reply_tokens"]
    predicted, endless = result["predicted_auto_tps"], result["predicted_endless_tps"]
    turn = "raw prompts have no second turn" if second is None else f"{1000 * second:,.1f} ms"
    yield (
        "replies",
        f"{length['least']} to {length['most']} tokens, {length['mean']:.1f} on average",
    )
    yield (
        "acceptance",
        f"{result['acceptance']:.1%} of the tested drafts; {result['acceptance_of'][AUTO]:.1%} of "
        "those that auto chose to make",
    )
    yield (
        "predicted",
        f"{predicted:,.1f} tokens/s by the cost model, {endless:,.1f} without ends; auto reaches "
        f"{result['auto_tps'] / predicted:.1%}",
    )
    yield "prefill", f"{result['prefill_tps']:,.0f} tokens/s, all models"
    yield (
        "first token",
        f"{1000 * result['first_turn_ttft_s']:,.1f} ms; {turn}"
        + (" in the second turn" if second is not None else ""),
    )
    yield "peak memory", f"{result['peak_mib']:,.0f} MiB"
    for name, shares in result["shares"].items():
        yield f"time, {name}", ", ".join(f"{part} {s:.1%}" for part, s in shares.items())
    yield "same tokens", ", ".join(f"{name} {n}/{of}" for name, (n, of) in result["equal"].items())
