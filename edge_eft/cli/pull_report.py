"""What `edge-eft pull` says of a plan, and of what came: for people, and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system import byte_size
from .terminal import compose, counted, dim, one_line, style

if TYPE_CHECKING:
    from .pull_plan import Model, Plan


def plan_lines(plan: Plan, missing: int) -> Iterator[str]:
    """Yield what a plan is, for people."""
    recipe = plan.recipe
    about = [recipe.name, recipe.description, recipe.license and f"({recipe.license})"]
    yield style(one_line("  ".join(filter(None, about))), bold=True)
    for model in sorted(plan.models, key=lambda model: _place_of(model.roles[0])):
        name = f"{model.repository.repo}/{model.parts[0].path}"
        size = model.n_bytes
        left = model.missing
        notes = ["here" if not left else "", "gated" if model.repository.gated else ""]
        if 0 < left < size:
            notes.append(f"{byte_size(size - left)} of it here")
        if model.is_cut:
            notes.append("damaged here")
        if len(model.parts) > 1:
            notes.append(f"{len(model.parts)} files")
        said = f"{', '.join(model.roles):<22}{byte_size(size):>9}  {one_line(name)}"
        yield compose(said, dim(f"  {', '.join(filter(None, notes))}".rstrip()))
    yield f"{'to fetch':<22}{byte_size(missing):>9}"
    yield f"{'memory to run it':<22}{byte_size(plan.memory.total):>9}"
    yield from (dim(one_line(note)) for note in plan.notes)


def _place_of(role: str) -> int:
    return ("base", "instruct", "tuned", "reference").index(role.partition(":")[0])


def end_lines(plan: Plan, missing: int, *, unchanged: bool, for_lora: bool) -> Iterator[str]:
    """Yield what has been done, and the next command."""
    name = plan.recipe.name
    total = sum(model.n_bytes for model in plan.models)
    models = f"{counted(len(plan.models), 'model')}, {byte_size(total)}"
    if unchanged and not missing:
        yield f"{name} was here already: {models}, compared with their sha256; nothing was fetched"
    else:
        yield f"{name} is here: {models}, of which {byte_size(missing)} were fetched"
    yield f"next: edge-eft chat {name}{' --lora ADAPTER' * for_lora}"


def as_data(plan: Plan, missing: int, path: Path | None) -> dict[str, Any]:
    """Return what a plan is, or what came of it, as plain data."""
    return {
        "name": plan.recipe.name,
        "path": None if path is None else str(path),
        "license": plan.recipe.license,
        "models": [_about_model(model) for model in plan.models],
        "bytes_fetched" if path else "bytes_to_fetch": missing,
        "bytes_looked_at": plan.looked_at,
        "memory_total": plan.memory.total,
        "notes": list(plan.notes),
    }


def _about_model(model: Model) -> dict[str, Any]:
    return {
        "roles": list(model.roles),
        "repo": model.repository.repo,
        "file": model.parts[0].path,
        "revision": model.repository.commit,
        "bytes": model.n_bytes,
        "sha256": model.spec.sha256,
        "gated": model.repository.gated,
        "license": model.repository.licence,
        "path": str(model.spec.file),
    }
