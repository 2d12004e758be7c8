"""What the command line, the lines of a prompt file and the chat's /set share.

SETTINGS is the one list of dials; the rest turns options into recipes and requests.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import click

from .checks import did_you_mean
from .emulator import Emulator
from .errors import RequestError
from .recipe import Recipe, from_files, load_recipe
from .request import Prompt, Request
from .template import FORMATS
from .text import ControlFilter
from .weights import Weights

Command = Callable[..., None]


def parse_mix(text: str) -> dict[str, float]:
    """ "a=.7,b=.3" → {"a": 0.7, "b": 0.3}; RequestError says what was seen."""
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.partition("="))
        try:
            if not name or name in mix:
                raise ValueError
            mix[name] = float(weight)
        except ValueError:
            raise RequestError(
                f"mix is {text!r}; write each delta once, as in chat=.7,brief=.3"
            ) from None
    return mix


def _draft(text: str) -> int | str:
    return text if text == "auto" else int(text)


class Setting(NamedTuple):
    """One dial: how its text is read, and what it does."""

    read: Callable[[str], Any]
    metavar: str
    help: str


SETTINGS = {
    "alpha": Setting(float, "A", "Strength of the delta: 0 is the base alone. Default 1."),
    "beta": Setting(float, "B", "Amplify the base over the reference instead (excludes alpha)."),
    "mix": Setting(parse_mix, "D=W,…", "Weights of the deltas, for the recipe's: chat=.7,brief=.3"),
    "only": Setting(str, "ROLE", "One model by itself: base, tuned, reference or tuned:DELTA."),
    "conservative": Setting(float, "P", "Combine only within the tuned model's top P, in (0, 1]."),
    "max_tokens": Setting(int, "N", "Longest reply, in tokens. Default 256."),
    "temperature": Setting(float, "T", "0 always takes the likeliest token. Default 0.8."),
    "top_k": Setting(int, "K", "Draw from the K likeliest tokens; 0 from all. Default 40."),
    "top_p": Setting(float, "P", "Draw from the likeliest tokens of mass P. Default 0.95."),
    "min_p": Setting(float, "P", "Drop tokens below P times the likeliest. Default 0."),
    "repetition_penalty": Setting(float, "R", "Damp tokens the reply has; 1 is off. Default 1."),
    "presence_penalty": Setting(float, "R", "Subtracted once from such tokens. Default 0."),
    "frequency_penalty": Setting(float, "R", "Subtracted once per occurrence. Default 0."),
    "draft": Setting(_draft, "N", "Tokens that tuned drafts ahead, for speed. Default auto."),
    "seed": Setting(int, "N", "The same seed gives the same text. Default: another each time."),
}
_OF_WEIGHTS = ("alpha", "beta", "mix", "only")


def request_for(prompt: Prompt, settings: Mapping[str, Any]) -> Request:
    """A request with `settings` (names of SETTINGS, and `stop`); RequestError names a wrong one."""
    if unknown := sorted(set(settings) - set(SETTINGS) - {"stop"}):
        raise RequestError(
            f"there is no setting {unknown[0]!r}{did_you_mean(unknown[0], SETTINGS)}"
        )
    weights = {name: settings[name] for name in _OF_WEIGHTS if name in settings}
    others = {name: value for name, value in settings.items() if name not in _OF_WEIGHTS}
    return Request(prompt, weights=Weights.from_dict(weights), **others)


@dataclass(frozen=True)
class Models:
    """Which models, and how they are loaded."""

    base: str | None
    tuned: str | None
    reference: str | None
    prompt: str | None
    n_ctx: int | None
    threads: int | None
    gpu_layers: int | None

    def recipe(self, words: Sequence[str], *, at_most: int) -> tuple[Recipe, list[str]]:
        """The recipe that options and words name, and the words after it.

        With --tuned and --reference there is no recipe among the words; `at_most` words may
        follow it.
        """
        names_files = self.tuned is not None or self.reference is not None
        if names_files and None in (self.base, self.tuned, self.reference):
            raise click.UsageError("--tuned and --reference need each other and --base")
        if not names_files and not words:
            raise click.UsageError("Name a recipe (atlas), or --base, --tuned and --reference.")
        rest = list(words if names_files else words[1:])
        if len(rest) > at_most:
            raise click.UsageError(f"{rest[at_most]!r} is one word too many; quote the prompt.")
        if names_files:
            prompt = self.prompt or "plain"
            return from_files(self.base, self.tuned, self.reference, prompt=prompt), rest  # type: ignore[arg-type]
        recipe = load_recipe(words[0])
        if self.base is not None:
            recipe = recipe.with_base(self.base, prompt=self.prompt)
        elif self.prompt is not None:
            raise click.UsageError("--prompt goes with --base; the recipe has its own formats.")
        return recipe, rest

    def load(self, recipe: Recipe, *, n_slots: int = 1) -> Emulator:
        """Load it all; may take a while."""
        return Emulator(
            recipe,
            n_ctx=self.n_ctx,
            n_threads=self.threads,
            n_gpu_layers=self.gpu_layers,
            n_slots=n_slots,
        )


def model_options(command: Command) -> Command:
    """Options for the models, given to the command as `models`."""

    @functools.wraps(command)
    def packed(*, verbose: bool, **options: Any) -> None:
        start_logging(verbose)
        models = Models(**{name: options.pop(name) for name in Models.__dataclass_fields__})
        command(models=models, **options)

    for option in (
        click.option("--verbose", "-v", is_flag=True, help="Say on stderr what is going on."),
        click.option("--gpu-layers", type=int, metavar="N", help="Per model; default: all."),
        click.option("--threads", type=int, metavar="N", help="Default: the physical cores."),
        click.option("--n-ctx", type=int, metavar="N", help="Context length in tokens."),
        click.option("--prompt", metavar="FORMAT", help=f"Of the base: {', '.join(FORMATS)}."),
        click.option("--reference", metavar="FILE", help="GGUF that `tuned` was tuned from."),
        click.option("--tuned", metavar="FILE", help="GGUF of the small tuned model."),
        click.option("--base", metavar="FILE", help="GGUF of the large base model."),
    ):
        packed = option(packed)
    return packed


def setting_options(command: Command) -> Command:
    """SETTINGS as options, given to the command as `settings` (those that were set)."""

    @functools.wraps(command)
    def packed(**options: Any) -> None:
        given = {name: options.pop(name) for name in [*SETTINGS, "stop"]}
        settings = {name: value for name, value in given.items() if value not in (None, ())}
        command(settings=settings, **options)

    packed = click.option("--stop", multiple=True, metavar="S", help="End before S; repeatable.")(
        packed
    )
    for name, setting in reversed(SETTINGS.items()):
        flag = f"--{name.replace('_', '-')}"
        packed = click.option(flag, type=setting.read, metavar=setting.metavar, help=setting.help)(
            packed
        )
    return packed


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
system_option = click.option("--system", metavar="S", help="System message.")
words_argument = click.argument("words", nargs=-1, metavar="[RECIPE] [PROMPT]")


def start_logging(verbose: bool) -> None:
    """Warnings, or more, to stderr, one line each and harmless."""

    class OneLine(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return one_line(f"edge-eft: {record.getMessage()}")

    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logger = logging.getLogger("edge_eft")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)


def one_line(text: str) -> str:
    """Text that may hold anything, as one harmless line."""
    return " ".join(ControlFilter().filter(text).split())
