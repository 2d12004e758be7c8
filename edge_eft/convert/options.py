"""What the user asked for, and the names of the files that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..files.gguf_split import part_paths

AUTO = "AUTO"

# What `--type auto` tries: every type of these that the engine offers, by its planned size.
AUTO_TYPES = (
    *("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1"),
    *("Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q2_K"),
)
FILES = "{name}-{part}-{type}.gguf"


@dataclass(frozen=True)
class Options:
    """What the user asked for; paths as given.

    Attributes:
        tuned: name of the delta → its tuned input. One without a name is called `tuned`.
        type: a canonical type name, or `AUTO`.
        base_type: type of a base that is converted; None leaves a GGUF base as it is.
        recipe: where the recipe goes; None: OUT/NAME.toml.
        prompts: role (`base`, `tuned`, `reference`) → prompt format for the recipe.
        max_kl: nats, for `AUTO`. max_bytes: of the pair, for `AUTO`.
        calibrate, text: text files for the importance matrix and for the report.
        share: name a file of the same content that OUT already holds, instead of another copy.
        files: pattern of the names of model files, of {name}, {part} and {type}.
        command: the command line, for the record.
    """

    reference: Path
    tuned: Mapping[str, Path]
    out: Path
    name: str
    base: Path | None = None
    type: str = "Q8_0"
    base_type: str | None = None
    recipe: Path | None = None
    description: str = ""
    license: str = ""
    n_ctx: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    alpha: float = 1.0
    max_kl: float | None = None
    max_bytes: int | None = None
    calibrate: Path | None = None
    text: Path | None = None
    keep_lora: bool = False
    allow_requantize: bool = False
    trust_remote_code: bool = False
    share: bool = False
    files: str = FILES
    force: bool = False
    llama_cpp: Path | None = None
    command: str = ""

    @property
    def inputs(self) -> list[Path]:
        """All files and directories that are read; a conversion leaves them as they are."""
        named = [self.reference, *self.tuned.values(), self.base, self.text, self.calibrate]
        return [part for path in named if path is not None for part in part_paths(path)]

    @property
    def recipe_path(self) -> Path:
        return self.recipe or self.out / f"{self.name}.toml"

    @property
    def report_path(self) -> Path:
        return self.out / f"{self.name}.fidelity.json"

    @property
    def final_base_type(self) -> str:
        """The type of a base that is converted."""
        return self.base_type or "Q8_0"

    @property
    def final_base_path(self) -> Path:
        return self.model_path("base", self.final_base_type)

    def model_path(self, part: str, type_name: str) -> Path:
        """Return a model file's final name; `part` is `reference`, `base` or the delta's name."""
        return self.out / self.files.format(name=self.name, part=part, type=type_name)

    def lora_path(self, delta: str) -> Path:
        return self.model_path(delta, "lora")


def checked_type(name: str) -> str:
    """Return `AUTO`, or the canonical name of a type."""
    from ..backend.quantize import canonical_type

    return AUTO if name.strip().upper() == AUTO else canonical_type(name)
