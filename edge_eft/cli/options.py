"""Options that commands share: which models, which settings.

The declarations load nothing but click; recipes and models are loaded when they are asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from ..engine.settings import REPLACES, SETTINGS, Setting
from ..text.formats import FORMATS
from .command import (
    DIALS,
    LOADING,
    MODELS,
    OUTPUT,
    PROMPT,
    REMOVING,
    SAMPLING,
    SPEED,
    option,
)
from .completion import (
    complete_format,
    complete_gguf,
    complete_mix,
    complete_recipe,
    complete_role,
)
from .models import Models
from .naming import DEFAULT_RECIPE
from .terminal import set_quiet, start_logging
from .values import Finite, Text, Written

Function = Callable[..., None]

_SHORT = {
    "alpha": ("-a",),
    "max_tokens": ("-n",),
    "temperature": ("-t",),
    "seed": ("-s",),
}
_GROUPS = {
    **dict.fromkeys(("alpha", "beta", "mix", "only", "conservative"), DIALS),
    "chat_template_kwargs": PROMPT,
    "draft": SPEED,
}
_DRAFTS = "a whole number, 0 to 15, or auto"
_COMPLETE = {"mix": complete_mix, "only": complete_role}
_NO_DEFAULT = ("beta", "only", "conservative")  # ways of one reply


quiet_option = option(
    "--quiet",
    "-q",
    is_flag=True,
    key=True,
    group=OUTPUT,
    is_eager=True,  # before anything is said
    expose_value=False,
    callback=lambda ctx, param, value: set_quiet(value),
    help="Say on stderr nothing but errors: no progress, no notes.",
)


def file_option(name: str, help: str, *, metavar: str = "FILE", required: bool = False) -> Any:
    """Return the option that names the file of a model, or an adapter."""
    return option(
        f"--{name}",
        group=MODELS,
        metavar=metavar,
        required=required,
        shell_complete=complete_gguf,
        help=help,
    )


threads_option = option(
    "--threads",
    type=click.IntRange(1, 512),
    key=True,
    group=LOADING,
    metavar="N",
    show_default="the physical cores",
    help="CPU threads.",
)
gpu_layers_option = option(
    "--gpu-layers",
    type=click.IntRange(0, 10_000),
    key=True,
    group=LOADING,
    metavar="N",
    show_default="all",
    help="Layers of each model that the GPU computes.",
)

# As decorators stand, the last is the first of --help.
_OF_MODELS = (
    quiet_option,
    option(
        "--verbose",
        "-v",
        is_flag=True,
        key=True,
        group=OUTPUT,
        help="Say on stderr what is going on.",
    ),
    gpu_layers_option,
    threads_option,
    option(
        "--n-ctx",
        type=click.IntRange(1, 2**24),
        key=True,
        group=LOADING,
        metavar="N",
        show_default="the recipe's, or 4096",
        help="Context length in tokens.",
    ),
    option(
        "--format",
        type=Text(),
        aliases=["--prompt"],
        group=MODELS,
        metavar="FORMAT",
        shell_complete=complete_format,
        help=f"Prompt format of the base: {', '.join(FORMATS)}, or Jinja.",
        show_default="the recipe's, or plain",
    ),
    file_option(
        "lora",
        "LoRA (GGUF or PEFT directory) of the small instruct model, to steer the large one.",
        metavar="ADAPTER",
    ),
    file_option("reference", "GGUF that `tuned` was tuned from."),
    file_option("tuned", "GGUF of the small tuned model."),
    file_option("base", "GGUF of the large base model."),
    option(
        "--model",
        "-m",
        "recipe",
        aliases=["--recipe"],
        key=True,
        group=MODELS,
        metavar="RECIPE",
        shell_complete=complete_recipe,
        show_default=DEFAULT_RECIPE,
        help="The recipe, as an option instead of the first word.",
    ),
)


def model_options(function: Function) -> Function:
    """Add the options for the models, given to the command as `models`."""

    @functools.wraps(function)
    def with_models(*, verbose: bool, recipe: str | None, **options: Any) -> None:
        start_logging(verbose)
        named = is_typed("recipe")
        names = Models.__dataclass_fields__.keys() - {"model", "default", "assumed"}
        given = {name: options.pop(name) for name in names}
        models = Models(**given, model=recipe if named else None, default=recipe)
        function(models=models, **options)

    packed: Function = with_models
    for each in _OF_MODELS:
        packed = each(packed)
    return packed


def setting_options(function: Function) -> Function:
    """Add SETTINGS as options, given to the command as `settings` (those that were set)."""

    @functools.wraps(function)
    def with_settings(**options: Any) -> None:
        given = {name: options.pop(name) for name in [*SETTINGS, "stop"]}
        settings = {name: value for name, value in given.items() if value not in (None, ())}
        for name in filter(is_typed, REPLACES):
            for other in REPLACES[name]:
                if not is_typed(other):  # a default of the user's
                    settings.pop(other, None)
        function(settings=settings, **options)

    packed: Function = option(
        "--stop",
        type=Text(),
        multiple=True,
        key=True,
        group=SAMPLING,
        metavar="S",
        help="End before S; repeatable.",
    )(with_settings)
    for name, setting in reversed(SETTINGS.items()):
        packed = _setting_option(name, setting)(packed)
    return packed


def kind_of(name: str) -> click.ParamType:
    """Return the type of a setting's values, with their range."""
    setting = SETTINGS[name]
    if setting.read is float:
        return Finite(setting.low, setting.high, min_open=setting.above_low)
    if setting.read is int:
        return click.IntRange(
            None if setting.low is None else int(setting.low),
            None if setting.high is None else int(setting.high),
        )
    return Text() if setting.read is str else Written(name, setting.read, _DRAFTS)


def _setting_option(name: str, setting: Setting) -> Callable[[Function], Function]:
    return option(
        f"--{name.replace('_', '-')}",
        *_SHORT.get(name, ()),
        type=kind_of(name),
        aliases=["--temp"] if name == "temperature" else (),
        key=name not in _NO_DEFAULT,
        group=_GROUPS.get(name, SAMPLING),
        metavar=setting.metavar,
        shell_complete=_COMPLETE.get(name),
        show_default=setting.default or None,
        help=setting.help,
    )


def is_typed(name: str) -> bool:
    """Return whether a parameter of the command that runs was given on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def slots_option(help: str) -> Callable[[Function], Function]:
    """Return the option for how many requests are decoded together, given as `slots`."""
    return option(
        "--slots",
        type=click.IntRange(1, 64),
        default=4,
        key=True,
        group=SPEED,
        show_default=True,
        metavar="N",
        help=help,
    )


json_option = option(
    "--json", "as_json", is_flag=True, group=OUTPUT, help="Print JSON on stdout: docs/cli.md."
)
yes_option = option("--yes", "-y", is_flag=True, group=REMOVING, help="Do not ask.")
system_option = option(
    "--system", type=Text(), key=True, group=PROMPT, metavar="S", help="System message."
)
recipe_argument = click.argument(
    "words", nargs=-1, metavar="[RECIPE]", shell_complete=complete_recipe
)
words_argument = click.argument(
    "words", nargs=-1, metavar="[RECIPE] [PROMPT]", shell_complete=complete_recipe
)
