"""Three models that belong together, and where the embedded family is."""

from pathlib import Path
from typing import NamedTuple

import edge_eft
from edge_eft.files.gguf_check import read_header

ATLAS = Path(edge_eft.__file__).resolve().parent.parent / "models" / "atlas"


class Family(NamedTuple):
    """The three files of an emulation, and prompts that suit them."""

    base: Path
    tuned: Path
    reference: Path
    prompts: tuple[str, ...]


def twin(path: Path, folder: Path | None = None) -> Path:
    """A copy that is another model and says the same: in `folder`, else beside the file.

    tuned and reference may not be one model, so a test that needs no delta takes a twin. The last
    bit of the embedding of the vocabulary's last token differs, which no prompt or reply has.
    """
    copy = (folder or path.parent) / f"twin-of-{path.name}"
    if not copy.exists():
        header, data = read_header(path), bytearray(path.read_bytes())
        last = max(header.tensors, key=lambda tensor: tensor.offset)
        start = (len(data) - last.offset - last.n_bytes) // 32 * 32
        embedding = next(each for each in header.tensors if each.name == "token_embd.weight")
        data[start + embedding.offset + embedding.n_bytes - 4] ^= 1
        copy.write_bytes(data)
    return copy
