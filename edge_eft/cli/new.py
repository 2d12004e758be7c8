"""`edge-eft new`: a recipe of three files of one's own, with the prompt formats that suit them.

What is wrong with the files or the name is said before anything is loaded. Then the formats are
found by trying (`evaluate.formats`), the delta is looked at (`evaluate.delta`), and the recipe is
written, whole or not at all.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from ..errors import RecipeError
from ..text.formats import FORMATS
from .command import RECIPE, RUNS, option
from .command import command as new_command
from .new_report import as_data, comment, shown
from .options import file_option, gpu_layers_option, json_option, quiet_option, threads_option
from .progress import Display
from .terminal import one_line, say, start_logging, talk, to_json
from .values import Text

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from ..evaluate.delta import Effect
    from ..evaluate.formats import Trial
    from ..files.recipe import Recipe

_ROLES = ("base", "reference", "tuned")
# Seconds, at most but for the question that is being asked.
_FOR_FORMATS, _FOR_REFERENCE, _FOR_DELTA = 30.0, 5.0, 15.0


@dataclass(frozen=True)
class Files:
    """The models that were named on the command line."""

    base: str
    reference: str
    tuned: str | None
    lora: str | None


@new_command("new")
@click.argument("name")
@file_option("base", "GGUF of the large model.", required=True)
@file_option("reference", "GGUF of the small model that `tuned` was tuned from.", required=True)
@file_option("tuned", "GGUF of the small tuned model.")
@file_option("lora", "In place of --tuned: a LoRA on the reference.", metavar="ADAPTER")
@option(
    "--format",
    "formats",
    multiple=True,
    type=Text(),
    group=RECIPE,
    metavar="[ROLE=]FORMAT",
    help=f"Take this format ({', '.join(FORMATS)} or Jinja) instead of trying several; without "
    "ROLE, for base and reference. Repeatable.",
)
@option(
    "--force",
    is_flag=True,
    group=RECIPE,
    help="Replace a recipe of that name; make one of files that look exchanged, too.",
)
@option(
    "--n-ctx",
    type=click.IntRange(1),
    group=RECIPE,
    metavar="N",
    help="Context length in tokens.",
)
@option(
    "--no-measure", is_flag=True, group=RUNS, help="Find the formats, and measure nothing else."
)
@threads_option
@gpu_layers_option
@quiet_option
@json_option
def command(
    name: str,
    base: str,
    tuned: str | None,
    reference: str,
    lora: str | None,
    formats: tuple[str, ...],
    n_ctx: int | None,
    threads: int | None,
    gpu_layers: int | None,
    no_measure: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Make a recipe of three model files of yours.

    Checks that they belong together, tries which prompt format suits each (its chat template, plain
    text …), measures in a minute at most what the delta does and how fast it is, and saves recipe
    NAME, which run, chat, serve and list then know.

    \b
    Examples:
      edge-eft new mine --base large.gguf --tuned small-instruct.gguf --reference small.gguf
      edge-eft new mine --base large-instruct.gguf --reference small-instruct.gguf --lora my-lora
    """
    from ..evaluate.formats import to_try
    from .untried import shown_loading

    start_logging(False)
    given = _formats(formats)
    files = Files(base, reference, tuned, lora)
    recipe = _recipe(name, files, n_ctx, force)
    if not force:
        _check_pair(recipe)
    recipe = to_try(recipe, given)
    with shown_loading(recipe, n_threads=threads, n_gpu_layers=gpu_layers) as emulator:
        trial = _tried(emulator, given)
        _check_exchanged(emulator, trial, name, files, force=force)
        effect = None if no_measure else _measured(emulator)
        found = replace(emulator.recipe, name=name)
        thinks = _thinks(emulator)
    path = _save(found, comment(trial, effect), force)
    if as_json:
        say(to_json(as_data(found, path, trial, effect)))
        return
    shown(found, trial, effect)
    say(one_line(str(path)))
    if thinks:
        talk(
            "the tuned model may think before it answers; template_kwargs = { enable_thinking = "
            "false } beside its prompt in the recipe turns that off"
        )
    talk(f"edge-eft chat {name}")
    talk(f'edge-eft compare {name} "{trial.example}"')


def _formats(texts: tuple[str, ...]) -> dict[str, str]:
    """Return role → format of "plain" or "tuned=chatml"."""
    from ..files.recipe import check_prompt

    formats: dict[str, str] = {}
    for text in texts:
        role, equals, spec = text.partition("=")
        if not equals or role.strip() not in _ROLES:  # Jinja has = in it, too
            spec = text
            formats |= dict.fromkeys(("base", "reference"), spec)
        else:
            formats[role.strip()] = spec
        check_prompt("--format", spec)
    return formats


def _recipe(name: str, files: Files, n_ctx: int | None, force: bool) -> Recipe:
    """Return the recipe, with nothing wrong that can be known before models are loaded."""
    from ..files.lora import lora_on_files
    from ..files.recipe import from_files
    from ..files.recipe_names import check_free, check_new_name, check_place
    from ..files.recipe_toml import parse_recipe, to_toml
    from ..system import recipe_directory

    if (files.tuned is None) == (files.lora is None):
        raise click.UsageError("Give --tuned or --lora, and not both.")
    for role, file in asdict(files).items():
        if file is not None and (not file or file.endswith(".toml")):
            what = "an adapter" if role == "lora" else "a GGUF file"
            raise click.UsageError(f"--{role} takes {what}, and is {file!r}.")
    check_new_name(name)
    if not force:
        try:
            check_free(name)
        except RecipeError as error:
            raise RecipeError(f"{error}; --force replaces it") from None
    check_place()
    if files.lora is not None:
        recipe = lora_on_files(files.base, files.reference, files.lora)
    else:
        recipe = from_files(files.base, files.tuned or "", files.reference)
    recipe = replace(recipe, name=name, n_ctx=n_ctx, description=_description(files))
    text = to_toml(recipe, recipe_directory())
    parse_recipe(text.encode(), recipe_directory() / f"{name}.toml")  # as it will be read
    return recipe


def _description(files: Files) -> str:
    from ..files.gguf_split import model_stem

    small = files.tuned or files.lora or ""
    return f"{model_stem(Path(files.base))} led by {model_stem(Path(small))}"


def _tried(emulator: Emulator, given: Mapping[str, str]) -> Trial:
    """Find the formats."""
    from ..evaluate.formats import find_formats

    until = perf_counter() + _FOR_FORMATS
    with _steps(emulator, "trying prompt formats") as on_step:
        return find_formats(emulator, given=given, until=until, on_step=on_step)


def _measured(emulator: Emulator) -> Effect:
    """Look at the delta."""
    from ..evaluate.delta import measure

    until = perf_counter() + _FOR_DELTA
    with _steps(emulator, "measuring what the delta does") as on_step:
        return measure(emulator, until=until, on_step=on_step)


def _check_pair(recipe: Recipe) -> None:
    """Raise RecipeError if tuned and reference cannot be a pair, by what their files say."""
    from ..engine.pairs import unlike
    from ..files.gguf_check import read_header

    headers = {role: read_header(spec.file) for role, spec in recipe.models().items()}
    for line in unlike(recipe, headers):
        raise RecipeError(f"{line}; --force makes the recipe all the same")


def _check_exchanged(
    emulator: Emulator, trial: Trial, name: str, files: Files, *, force: bool
) -> None:
    """Look whether tuned and reference are exchanged, where the trial makes one think so.

    Tuned may answer nothing right and be what is meant, as a model that speaks another language
    is. But then the emulation goes its way, and is better than the base.

    Raises RecipeError if they plainly are, unless forced.
    """
    from ..evaluate.formats import CLOSE, ask_reference

    if files.tuned is None or (trial.n_right and trial.gain >= CLOSE):
        return
    with _steps(emulator, "asking the reference") as on_step:
        on_step(0, 1, "")
        n_asked, n_right = ask_reference(emulator, until=perf_counter() + _FOR_REFERENCE)
    if n_right <= max(1, trial.n_right):
        return
    words = ["edge-eft", "new", name, "--base", files.base]
    words += ["--tuned", files.reference, "--reference", files.tuned]
    said = (
        f"are tuned and reference swapped? tuned answers {trial.n_right} of {trial.n_asked} "
        f"questions right and the reference {n_right} of {n_asked}; exchanged: {shlex.join(words)}"
    )
    if trial.gain < CLOSE and not force:
        raise RecipeError(f"{said}; --force makes the recipe as it is")
    talk(one_line(said))


@contextmanager
def _steps(emulator: Emulator, label: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show how far some work with the emulator is, which Ctrl-C stops."""
    from .replies import stoppable

    with stoppable(emulator), Display(label) as display:

        def on_step(done: int, total: int, what: str) -> None:
            display.update(done, total, f"{label}: {what}" if what else label)

        yield on_step


def _thinks(emulator: Emulator) -> bool:
    """Return whether the template of tuned lets it think before it replies."""
    from ..engine.prompting import runner_of

    (delta,) = emulator.deltas
    return runner_of(emulator, f"tuned:{delta}").prompt.reads("enable_thinking")


def _save(recipe: Recipe, head: str, force: bool) -> Path:
    """Write the recipe; an adapter that was converted for it is kept beside it."""
    from ..files.adapter_cache import is_cached, keep
    from ..files.recipe_names import adapter_beside, own_recipe, save_recipe
    from ..system import recipe_directory

    role, tuned = next(each for each in recipe.models().items() if each[0].startswith("tuned:"))
    there = own_recipe(recipe.name) or recipe_directory() / f"{recipe.name}.toml"
    beside = adapter_beside(there)
    if tuned.lora is None or not is_cached(tuned.lora):
        path = save_recipe(recipe, force=force, comment=head)
        if beside.is_file():  # of the recipe that was replaced
            beside.unlink()
        return path
    keep(tuned.lora, beside)
    recipe = recipe.with_models({role: replace(tuned, lora=beside)})
    return save_recipe(recipe, force=force, comment=head)
