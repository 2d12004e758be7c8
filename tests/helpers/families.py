"""Three models that belong together, and where the embedded family is."""

from pathlib import Path
from typing import NamedTuple

import edge_eft

ATLAS = Path(edge_eft.__file__).resolve().parent.parent / "models" / "atlas"


class Family(NamedTuple):
    """The three files of an emulation, and prompts that suit them."""

    base: Path
    tuned: Path
    reference: Path
    prompts: tuple[str, ...]
