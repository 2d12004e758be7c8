"""gguf_vocabulary: the header says of the tokens what the loaded model does."""

from pathlib import Path

import numpy as np
import pytest
from helpers import gguf_builder as build
from helpers.families import Family
from helpers.gguf_parts import split_model

from edge_eft.backend import Model
from edge_eft.errors import ModelFileError
from edge_eft.files.gguf_check import read_header
from edge_eft.files.gguf_vocabulary import read_vocabulary
from edge_eft.text import vocabulary


@pytest.mark.parametrize("name", ["tiny", "atlas", "smollm2"])
def test_a_header_says_what_the_model_does(name: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(name)
    model = found if isinstance(found, Model) else Model(found.tuned, vocab_only=True)
    read = read_vocabulary(model.path)
    assert read.token_texts() == model.token_texts()
    kinds = model.token_attributes() & vocabulary._KIND
    assert np.array_equal(read.token_attributes() & ~2, kinds & ~2)
    assert (read.name, read.n_vocab) == (model.name, model.n_vocab)
    assert (read.bos_token, read.eos_token) == (model.bos_token, model.eos_token)
    assert read.eos_token in read.end_tokens <= model.end_tokens
    assert read.add_bos in (None, model.add_bos)


def test_vocabularies_are_compared_without_a_model(tiny: Family) -> None:
    read = {role: read_vocabulary(path) for role, path in zip("abc", tiny[:3], strict=True)}
    models = {
        role: Model(path, vocab_only=True) for role, path in zip("abc", tiny[:3], strict=True)
    }
    ours, theirs = vocabulary.reconcile(read), vocabulary.reconcile(models)
    assert (ours.n_vocab, ours.end_token) == (theirs.n_vocab, theirs.end_token)


def test_files_can_be_opened_elsewhere(tiny: Family, tmp_path: Path) -> None:
    """As a hub's are, by range requests: nothing of that name is on this machine."""
    first = split_model(tiny.base, tmp_path, 3)
    opened: list[str] = []

    def opener(path: Path):
        opened.append(path.name)
        return open(tmp_path / path.name, "rb")

    elsewhere = Path("owner/repo") / first.name
    header = read_header(elsewhere, opener=opener)
    assert (header.tensors, header.file_size) == (
        read_header(first).tensors,
        read_header(first).file_size,
    )
    assert len(opened) == 3
    assert read_vocabulary(elsewhere, opener=opener).n_vocab == header.n_vocab


def test_a_file_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(build.without(b"tokenizer.ggml.model").build())
    with pytest.raises(ModelFileError, match="has no tokenizer"):
        read_vocabulary(path)
    with pytest.raises(ModelFileError, match="no such file"):
        read_vocabulary(tmp_path / "none.gguf")
