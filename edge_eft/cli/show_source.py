"""What `show` tells of a recipe whose models are on the hub: where, how large, what they will take.

Nothing is loaded, and the hub is not asked: it is what the recipe states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..system import byte_size
from ..text.formats import is_named
from .terminal import Styled, compose, dim, one_line, style

if TYPE_CHECKING:
    from ..files.recipe import Recipe

_CONFIDENCE = {
    None: "as pulled",
    "exact": "size or hash seen by the catalogue's authors",
    "named": "file name seen by the catalogue's authors, size about right",
    "guessed": "named as its author names files, not seen; pull looks for it",
}
_FITS = {
    "yes": "fits here",
    "tight": "fits here once other programs are closed",
    "no": "more than this machine has",
}


def description(recipe: Recipe) -> dict[str, Any]:
    """Return what there is to tell, as plain data: `list`'s, and the command that gets it."""
    from ..files.pulled import pull_command
    from ..files.recipe_names import catalogue
    from .shelf import entry_of

    path = str(recipe.path)
    kind = "catalogue" if path in map(str, catalogue().values()) else "own"
    about = entry_of(recipe, recipe.name, kind).as_data()  # type: ignore[arg-type]
    deltas = {delta.name: delta.weight for delta in recipe.deltas.values()}
    return about | {"deltas": deltas, "pull": pull_command(recipe)}


def as_lines(about: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of `show` for people."""
    yield compose(style(one_line(about["name"]), bold=True), f"  {one_line(about['description'])}")
    yield from (f"{key:<12}{one_line(about[key])}" for key in ("license", "path") if about[key])
    yield f"{'deltas':<12}{', '.join(f'{name} × {w:g}' for name, w in about['deltas'].items())}"
    for role, model in about["models"].items():
        if role != "instruct":
            yield ""
            yield style(role, bold=True)
            yield from _model_lines(model)
    if instruct := about["models"].get("instruct"):
        yield ""
        yield from instruct_lines(instruct)
    yield ""
    if about["ratio"] is not None:
        ratio = f"{about['ratio']:.2g} of the base's bytes for each drafted token"
        texts = {"exact": "texts stay exactly the same", "rounding": "texts equal up to rounding"}
        yield f"{'drafts':<12}{ratio}; {texts[about['drafts']]}"
    if about["memory"] is not None:
        n_ctx = about["n_ctx"] or "the default"
        memory = f"about {byte_size(about['memory'])} at n_ctx {n_ctx}: {_FITS[about['fits']]}"
        yield f"{'memory':<12}{memory}"
    size = "" if about["bytes_to_pull"] is None else f"  ({byte_size(about['bytes_to_pull'])})"
    if about["for_lora"]:
        yield f"{'here for':<12}edge-eft chat {one_line(about['name'])} --lora ADAPTER"
    get = "the rest" if about["for_lora"] else "get it with"
    yield f"{get:<12}{one_line(about['pull'])}{size}"
    if about["gated"]:
        yield f"{'':<12}gated: accept the licence on the hub's page first"


def instruct_lines(model: Mapping[str, Any]) -> Iterator[Styled]:
    """Yield what there is to tell of the large instruct model, which adapters run on."""
    yield compose(style("instruct", bold=True), dim("  the base for --lora ADAPTER"))
    yield from map(compose, _model_lines(model))


def source_line(source: Mapping[str, Any] | str) -> str:
    """Return where a model comes from, on one line."""
    if isinstance(source, str):
        return one_line(source)
    revision = f" at {source['revision'][:12]}" if source["revision"] else ", newest revision"
    is_looked_up = source["revision"] or source["confidence"]
    known = _CONFIDENCE[source["confidence"]] if is_looked_up else "pull looks for it"
    gated = "; gated" if source["gated"] else ""
    return f"{source['repo']} {source['file']}{revision} ({known}{gated})"


def prompt_name(prompt: str) -> str:
    """Return the name of a prompt format; an inline template is long."""
    return one_line(prompt) if is_named(prompt) else "inline Jinja"


def _model_lines(model: Mapping[str, Any]) -> Iterator[str]:
    size = "" if model["bytes"] is None else f", {byte_size(model['bytes'])}"
    if model["file"] is not None:
        yield f"  file      {one_line(model['file'])}{size if model['here'] else ', missing'}"
    else:
        yield f"  file      to be pulled{size}"
    if model["source"]:
        yield f"  source    {source_line(model['source'])}"
    hashes = model["sha256"] or ()
    for each in [hashes] if isinstance(hashes, str) else hashes:
        yield f"  sha256    {each} stated"
    if model["prompt"]:
        yield f"  prompt    {prompt_name(model['prompt'])}"
