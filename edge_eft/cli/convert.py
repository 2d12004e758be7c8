"""`edge-eft convert`: options in words, checked before any work, and the result in words."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..convert import ConversionError
from ..convert.options import AUTO, FILES, Options, checked_type
from ..convert.talk import Talk
from ..convert.workspace import parse_size
from ..files.hf_directory import shown_name
from ..files.recipe import check_prompt
from ..files.recipe_toml import relative
from ..system import at_home
from .options import HELP
from .progress import Display
from .terminal import say, to_json

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _HomePath(click.Path):
    """A path; a shell expands ~ in `--out ~/x`, and in `--out=~/x` it does not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(_at_home(value), param, ctx)


def _at_home(path: str) -> Path:
    try:
        return at_home(path)
    except FileNotFoundError as error:
        raise ConversionError(f"{error.strerror}; write the path in full") from None


_PATH = _HomePath(path_type=Path)


@click.command(name="convert", context_settings={**HELP, "show_default": True})
@click.option(
    "--reference",
    type=_PATH,
    required=True,
    help="The small model before tuning: a Hugging Face directory or a GGUF file.",
)
@click.option(
    "--tuned",
    "tuned",
    multiple=True,
    required=True,
    metavar="[NAME=]PATH",
    help="The tuned small model: as --reference, or a LoRA adapter (PEFT directory or "
    "GGUF). Repeat it, with names, for several deltas on one reference.",
)
@click.option(
    "--base",
    type=_PATH,
    help="The large model, for the recipe and for measuring. A GGUF file is used as it "
    "is; a directory is converted.",
)
@click.option(
    "--type",
    "type_name",
    default="q8_0",
    metavar="TYPE",
    help="Any type of llama.cpp (q8_0, q6_k, q4_k_m …), or auto.",
)
@click.option("--base-type", metavar="TYPE", help="Quantise the base to this type, too.")
@click.option(
    "--max-kl",
    type=float,
    help="With --type auto: the smallest pair whose mean KL "
    "divergence is at most this, in nats.  [default: 0.01]",
)
@click.option(
    "--max-size",
    metavar="SIZE",
    help="With --type auto: the best pair that is no larger, such as 700M.",
)
@click.option(
    "--calibrate",
    type=_PATH,
    metavar="TEXT",
    help="Collect an importance matrix for the whole pair on this text.",
)
@click.option("--text", type=_PATH, help="Text to measure on.  [default: a small one of ours]")
@click.option("--alpha", type=float, default=1.0, help="Strength of the delta when measuring.")
@click.option(
    "--keep-lora",
    is_flag=True,
    help="Keep the adapter apart instead of merging it into the reference: one set of "
    "weights in memory.",
)
@click.option("--name", help="Name of the recipe and its files.  [default: that of --tuned]")
@click.option("--out", type=_PATH, required=True, help="Directory of the results.")
@click.option("--recipe", type=_PATH, help="Where the recipe goes.  [default: OUT/NAME.toml]")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="ROLE=FORMAT",
    help="Prompt format of base, tuned or reference, for the recipe.",
)
@click.option("--n-ctx", type=click.IntRange(min=1), help="Context length, for the recipe.")
@click.option("--description", default="", help="One line, for the recipe.")
@click.option("--license", "license_text", default="", help="Licence, for the recipe.")
@click.option(
    "--files",
    default=FILES,
    metavar="PATTERN",
    help="Names of the model files, made of {name}, {part} (the delta, reference or base) and "
    "{type}.",
)
@click.option(
    "--share",
    is_flag=True,
    help="If the directory already holds a file of the same content, name that one in the recipe.",
)
@click.option(
    "--allow-requantize",
    is_flag=True,
    help="Accept inputs that are quantised already, at the price of their errors.",
)
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Let a model directory run its own Python code while it is converted.",
)
@click.option(
    "--llama-cpp",
    type=_PATH,
    metavar="DIR",
    help="A llama.cpp checkout whose conversion scripts to use.",
)
@click.option("--force", is_flag=True, help="Replace existing results.")
@click.option("--quiet", is_flag=True, help="Only warnings and the result.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    reference: Path,
    tuned: tuple[str, ...],
    base: Path | None,
    type_name: str,
    base_type: str | None,
    max_kl: float | None,
    max_size: str | None,
    calibrate: Path | None,
    text: Path | None,
    alpha: float,
    keep_lora: bool,
    name: str | None,
    out: Path,
    recipe: Path | None,
    prompts: tuple[str, ...],
    n_ctx: int | None,
    description: str,
    license_text: str,
    files: str,
    share: bool,
    allow_requantize: bool,
    trust_remote_code: bool,
    llama_cpp: Path | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Turn a tuned small model and its reference into a quantised pair and a recipe.

    Both sides are quantised alike, checked, and measured: what quantising did to their
    difference is printed as a table and kept next to the recipe.
    """
    from ..convert.job import convert

    deltas = _tuned_by_name(tuned)
    kind = checked_type(type_name)
    if kind != AUTO and (max_kl is not None or max_size is not None):
        raise ConversionError("--max-kl and --max-size choose a type: pass --type auto with them")
    max_bytes = parse_size(max_size) if max_size is not None else None
    if kind == AUTO and max_kl is None and max_bytes is None:
        max_kl = 0.01
    if max_kl is not None and not (math.isfinite(max_kl) and max_kl > 0):
        raise ConversionError(f"--max-kl is {max_kl}; it must be a positive number")
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ConversionError(f"--alpha is {alpha}; it must be a finite number, 0 or more")
    if alpha != 1 and base is None:
        raise ConversionError("--alpha needs --base: without it the reference stands in at α = 1")
    for path in (calibrate, text):
        if path is not None and not path.is_file():
            raise ConversionError(f"{path}: no such text file")
    options = Options(
        reference=reference,
        tuned=deltas,
        out=out,
        name=_recipe_name(name, deltas),
        base=base,
        type=kind,
        base_type=_model_type(base_type) if base_type else None,
        recipe=recipe,
        description=description,
        license=license_text,
        n_ctx=n_ctx,
        prompts=_prompts(prompts, base),
        alpha=alpha,
        max_kl=max_kl,
        max_bytes=max_bytes,
        calibrate=calibrate,
        text=text,
        keep_lora=keep_lora,
        allow_requantize=allow_requantize,
        trust_remote_code=trust_remote_code,
        share=share,
        files=_pattern(files),
        force=force,
        llama_cpp=llama_cpp,
        command=shlex.join(["edge-eft", "convert", *_arguments()]),
    )
    outcome = convert(options, _TerminalTalk(quiet))
    if as_json:
        say(to_json(outcome.report.as_json()))
    else:
        say(outcome.report.table())
    if not quiet:
        shown = relative(outcome.recipe, Path.cwd())
        more = "" if base else " --base LARGE.gguf"
        say(f'wrote {shown}; try: edge-eft run {shlex.quote(shown)}{more} "…"', err=True)


class _TerminalTalk(Talk):
    """Lines and bars on stderr; stdout stays free for data. `quiet` leaves warnings only."""

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self.quiet = quiet

    def warn(self, line: str) -> None:
        if line not in self.warnings:
            say(f"warning: {line}", err=True)
        super().warn(line)

    @contextmanager
    def step(self, label: str) -> Iterator[Callable[[int, int], None]]:
        with Display(label, hidden=self.quiet) as display:
            yield display.update


def _arguments() -> list[str]:
    """Return the arguments as typed, without the leading word `convert`."""
    typed = sys.argv[1:]
    return typed[1:] if typed[:1] == ["convert"] else typed


def _tuned_by_name(texts: tuple[str, ...]) -> dict[str, Path]:
    deltas: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not _NAME.fullmatch(name) or os.path.exists(text):
            name, path = "tuned", text
        if name in deltas:
            raise ConversionError(
                f"two tuned models are called {name!r}: give each a name, --tuned chat=PATH"
            )
        if name in ("reference", "base"):
            raise ConversionError(f"a delta cannot be called {name!r}: that is a role's name")
        deltas[name] = _at_home(path)
    return deltas


def _recipe_name(name: str | None, deltas: dict[str, Path]) -> str:
    if name is None:
        first = next(iter(deltas.values()))
        name = first.stem if os.path.isfile(first) else shown_name(first)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
        name = name.strip("-._") or "pair"
    if not _NAME.fullmatch(name):
        raise ConversionError(f"--name is {name!r}: use letters, digits, '.', '_' and '-'")
    return name


def _pattern(pattern: str) -> str:
    try:
        shown = pattern.format(name="n", part="p", type="t")
    except (LookupError, ValueError, AttributeError):
        shown = ""
    if "{part}" not in pattern or not _NAME.fullmatch(shown) or not shown.endswith(".gguf"):
        raise ConversionError(
            f"--files is {pattern!r}; write a file name of {{name}}, {{part}} and {{type}} that "
            "has {part} and ends in .gguf"
        )
    return pattern


def _model_type(name: str) -> str:
    kind = checked_type(name)
    if kind == AUTO:
        raise ConversionError("--base-type cannot be auto: only the pair is chosen by measuring")
    return kind


def _prompts(texts: tuple[str, ...], base: Path | None) -> dict[str, str]:
    prompts = {}
    for text in texts:
        role, equals, form = text.partition("=")
        if role not in ("base", "tuned", "reference") or not equals:
            raise ConversionError(
                f"--prompt is {text!r}; write base=FORMAT, tuned=FORMAT or reference=FORMAT"
            )
        check_prompt(f"--prompt {role}", form)
        if role == "base" and base is None:
            raise ConversionError(
                "--prompt base=FORMAT needs --base: a recipe without a base has no place for it"
            )
        prompts[role] = form
    return prompts
