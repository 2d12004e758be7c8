"""The embedded family, with chat templates that its models never saw, or none."""

from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.families import Family
from helpers.gguf_parts import with_template

UNSEEN = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '\\n' }}{% endfor %}"
    "<|assistant|>\\n"
)


class Copies(NamedTuple):
    """Files of atlas: the base with an unseen template; all three without any."""

    unseen_base: Path
    bare: Family


@pytest.fixture(scope="session")
def copies(atlas, tmp_path_factory) -> Copies:
    folder = tmp_path_factory.mktemp("templates")
    bare = [
        with_template(getattr(atlas, role), folder / f"bare-{role}.gguf", None)
        for role in ("base", "tuned", "reference")
    ]
    unseen = with_template(atlas.base, folder / "unseen.gguf", UNSEEN)
    return Copies(unseen, Family(*bare, ()))
