"""Which type a pair gets: the one asked for, or with `auto` the one that measuring finds best."""

from __future__ import annotations

from collections.abc import Mapping

from ..backend.quantize import NEEDS_IMATRIX, TYPES
from ..errors import ConversionError
from .options import AUTO, AUTO_TYPES
from .sweep import Candidate, Sweep


def winner(sweep: Sweep) -> Candidate:
    """Return the pair in the type asked for, or the best choice for `auto`.

    Raises:
        ConversionError: the type needs what was not given, no type is good or small enough, or the
            disk is too full.
    """
    options = sweep.options
    if options.type != AUTO:
        if options.type in NEEDS_IMATRIX and options.calibrate is None:
            raise ConversionError(
                f"{options.type} needs an importance matrix: pass --calibrate TEXT"
            )
        sweep.check_requantising(options.type)
        sweep.check_space(sweep.planned_size(options.type))
        sweep.check_difference()
        return sweep.best_of_type(options.type)
    sizes = _sizes(sweep)
    sweep.check_requantising(max(sizes, key=lambda name: sizes[name]))
    sweep.check_space(2 * max(sizes.values()))
    sweep.check_difference()
    if options.max_kl is not None:
        return _smallest_good_enough(sweep, sizes, options.max_kl, options.max_bytes)
    assert options.max_bytes is not None  # the command sees to it
    return _best_that_fits(sweep, sizes, options.max_bytes)


def _sizes(sweep: Sweep) -> dict[str, int]:
    """Return type → planned size of the types to try: one of those with the same plan."""
    by_plan: dict[tuple[str | int, ...], str] = {}
    for name in AUTO_TYPES:
        if name in TYPES:
            plan = tuple(after for _, _, after, _ in sweep.plan(sweep.masters.reference, name))
            by_plan.setdefault(plan, name)
    return {name: sweep.planned_size(name) for name in by_plan.values()}


def _smallest_good_enough(
    sweep: Sweep, sizes: Mapping[str, int], max_kl: float, limit: int | None
) -> Candidate:
    nearest: Candidate | None = None
    for name in sorted(sizes, key=lambda n: sizes[n]):
        if limit is not None and sizes[name] > limit:
            continue
        candidate = sweep.best_of_type(name)
        if candidate.fidelity.kl_mean <= max_kl and _fits(candidate, limit):
            return candidate
        candidate.discard()
        if nearest is None or candidate.fidelity.kl_mean < nearest.fidelity.kl_mean:
            nearest = candidate
    seen = (
        f"the best, {nearest.type}, has {nearest.fidelity.kl_mean:.4g}"
        if nearest
        else f"none is as small as {limit:,} bytes"
    )
    raise ConversionError(f"no type reaches a mean KL of {max_kl:g}: {seen}")


def _best_that_fits(sweep: Sweep, sizes: Mapping[str, int], limit: int) -> Candidate:
    best: Candidate | None = None
    n_worse = 0
    for name in sorted(sizes, key=lambda n: -sizes[n]):
        # Errors grow as files shrink, not quite steadily: three in a row settle it.
        if sizes[name] > limit or n_worse == 3:
            continue
        candidate = sweep.best_of_type(name)
        if not _fits(candidate, limit):
            candidate.discard()
        elif best is None or candidate.fidelity.kl_mean < best.fidelity.kl_mean:
            if best is not None:
                best.discard()
            best, n_worse = candidate, 0
        else:
            candidate.discard()
            n_worse += 1
    if best is None:
        smallest = min(sizes.values())
        raise ConversionError(
            f"no type makes the pair as small as {limit:,} bytes: the smallest takes {smallest:,}"
        )
    return best


def _fits(candidate: Candidate, limit: int | None) -> bool:
    return limit is None or candidate.size_bytes <= limit
