"""The models among found files: their headers, checked, and what names and headers say they are.

Every header passes the whole of `gguf_check`; what does not is left out with a line that says why.
Whether models belong together is `match`'s question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ModelFileError, VocabularyError
from ..files.gguf_check import GGUFHeader, checked_header, read_layout
from ..files.gguf_header import Walked
from ..files.gguf_split import model_stem
from ..files.gguf_vocabulary import HeaderVocabulary, vocabulary_of
from ..files.model_names import ModelName, model_name
from ..text import vocabulary
from .stores import Found

_MAX_TOKENS = 1 << 24  # of all different vocabularies together

BY_TEMPLATE = "by its chat template, or none"  # the weakest sign of whether a model was tuned


@dataclass(frozen=True, eq=False)
class Candidate:
    """One file that holds a model, or an adapter.

    Attributes:
        found: where it is.
        header: which passed every check.
        name: what its name says; that of its folder where the file's says nothing.
        said: what `general.name` in its header says.
        made_from: what its header says it was made from: names of other models.
        family: number of the vocabulary that it shares with others; −1 of an adapter.
        vocabulary: of the file's header; None of an adapter.
        tuned: whether it was tuned, and `why` that is thought.
    """

    found: Found
    header: GGUFHeader
    name: ModelName
    said: ModelName
    made_from: tuple[ModelName, ...]
    family: int = -1
    vocabulary: HeaderVocabulary | None = None
    tuned: bool = True
    why: str = ""

    @property
    def path(self) -> Path:
        """The file, as a recipe names it."""
        return self.found.path

    @property
    def title(self) -> str:
        """What people call it: Ollama's name, or the file's."""
        if self.found.owner != "Ollama":
            return model_stem(self.path)
        named = self.header.metadata.get("general.name")  # of a blob that only an adapter names
        return self.found.name or (named if isinstance(named, str) and named else self.path.name)

    @property
    def shape(self) -> tuple[object, ...]:
        """What tuning does not change: the architecture and its sizes."""
        header = self.header
        keys = ("embedding_length", "feed_forward_length", "attention.head_count", "expert_count")
        values = (header.metadata.get(f"{header.architecture}.{key}") for key in keys)
        return (header.architecture, header.n_layer, *map(str, values))

    @property
    def identity(self) -> tuple[object, ...]:
        """What all quantisations of one model have in common."""
        return (self.family, self.shape, self.name.core, self.name.marks, self.tuned)

    @property
    def template(self) -> str:
        """The chat template in the file; "" if it has none."""
        template = self.header.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else ""

    @property
    def quiet(self) -> dict[str, bool]:
        """Variables for the template of a model that would think before it answers."""
        return {"enable_thinking": False} if "enable_thinking" in self.template else {}


def read_candidates(files: Iterable[Found]) -> tuple[list[Candidate], list[str]]:
    """Return the models and adapters among `files`, and a line for each that is left out."""
    reader = _Reader()
    for file in files:
        reader.read(file)
    models = [each for each in reader.found if not each.header.is_adapter]
    said = [(each.name.core, each.name.tuned) for each in models if each.name.tuned is not None]
    settled = [_settled(each, said) for each in reader.found]
    return settled, reader.notes


class _Reader:
    """Reads headers one after the other, and numbers the vocabularies."""

    def __init__(self) -> None:
        self.found: list[Candidate] = []
        self.notes: list[str] = []
        self._walked = Walked()
        self._known: dict[bytes, tuple[int, HeaderVocabulary]] = {}
        self._families: list[HeaderVocabulary] = []
        self._n_tokens = 0

    def read(self, file: Found) -> None:
        try:
            layout = read_layout(file.path, walked=self._walked)
            header = checked_header(layout, file.path)
        except ModelFileError as error:
            self.notes.append(f"left out: {error}")
            return
        candidate = _candidate(file, header)
        if why := _no_writer(candidate):
            self.notes.append(f"left out: {file.path}: {why}")
            return
        if not header.is_adapter:
            key = layout.vocabulary_id()
            if key not in self._known:
                self._n_tokens += header.n_vocab
                if self._n_tokens > _MAX_TOKENS:
                    self.notes.append(f"left out: {file.path}: too many different vocabularies")
                    return
                self._known[key] = self._numbered(vocabulary_of(layout, file.path.name))
            family, known = self._known[key]
            candidate = replace(candidate, family=family, vocabulary=known)
        self.found.append(candidate)

    def _numbered(self, new: HeaderVocabulary) -> tuple[int, HeaderVocabulary]:
        """Return the number of the first vocabulary that `new` can be combined with."""
        for number, known in enumerate(self._families):
            if _is_one_family(known, new):
                return number, new
        self._families.append(new)
        return len(self._families) - 1, new


def _is_one_family(one: HeaderVocabulary, other: HeaderVocabulary) -> bool:
    """Return whether two vocabularies are one up to padding, renamed reserved and end tokens."""
    # Those of two families differ at once, and are not compared to their ends.
    if one.token_texts()[:1000:7] != other.token_texts()[:1000:7] and _written_differ(one, other):
        return False
    try:
        vocabulary.reconcile({"base": one, "tuned": other})
    except VocabularyError:
        return False
    return True


def _written_differ(one: HeaderVocabulary, other: HeaderVocabulary) -> bool:
    written = vocabulary.NORMAL | vocabulary.BYTE
    for i in range(0, min(1000, one.n_vocab, other.n_vocab), 7):
        kinds = int(one.token_attributes()[i]) | int(other.token_attributes()[i])
        if one.token_texts()[i] != other.token_texts()[i] and kinds & written:
            return True
    return False


def _candidate(file: Found, header: GGUFHeader) -> Candidate:
    metadata = header.metadata
    name = model_name(model_stem(file.path))
    if file.owner == "Ollama":
        name = model_name(file.name.rpartition("/")[2].replace("-text", "-base"))
    elif not name.core:
        name = model_name(f"{file.name.rpartition('/')[2]} {model_stem(file.path)}")
    said = model_name(" ".join(_texts(metadata, "general.name", "general.finetune")))
    if not name.core:
        name = said
    bases = (
        _texts(metadata, f"general.base_model.{i}.name", f"general.base_model.{i}.repo_url")
        for i in range(4)
    )
    made_from = tuple(model_name(each.rpartition("/")[2]) for texts in bases for each in texts[:1])
    return Candidate(file, header, name, said, made_from)


def _texts(metadata: Mapping[str, object], *keys: str) -> list[str]:
    return [text for key in keys if isinstance(text := metadata.get(key), str) and text]


def _no_writer(candidate: Candidate) -> str:
    """Return why a model that llama.cpp can load does not write text; "" if it does."""
    header = candidate.header
    if header.is_adapter:
        return ""
    pooling = header.metadata.get(f"{header.architecture}.pooling_type")
    names = (candidate.name, candidate.said)
    if pooling or not all(name.writes for name in names):
        return "is a model for embeddings or ranking, which writes no text"
    if any(tensor.name.startswith(("cls.", "cls_")) for tensor in header.tensors):
        return "is a classifier, which writes no text"
    if any(tensor.name.startswith(("v.", "mm.", "a.")) for tensor in header.tensors):
        return "has its vision or sound part in the same file, which llama.cpp does not read"
    return ""


def _settled(
    candidate: Candidate, labelled: Iterable[tuple[frozenset[str], bool | None]]
) -> Candidate:
    """Decide whether a model was tuned, by the best sign there is."""
    name, said = candidate.name, candidate.said
    others = {tuned for core, tuned in labelled if core == name.core}
    others_of = [each for each in candidate.made_from if not _same_model(each, name)]
    is_ollamas = candidate.found.owner == "Ollama" and "/" not in candidate.found.name
    signs = (
        (name.tuned, "by its name"),
        (said.tuned if said.core <= name.core else None, "by general.name"),
        (True if is_ollamas else None, "as Ollama names chat models"),
        (name.plainly_tuned, "as its family is named"),
        (True if others_of else None, "by the model it was made from"),
        (True if others == {False} else None, "others of its family say that they are not"),
        (False if others == {True} else None, "others of its family say that they are"),
        (bool(candidate.template), BY_TEMPLATE),
    )
    tuned, why = next((sign, why) for sign, why in signs if sign is not None)
    return replace(candidate, tuned=bool(tuned), why=why)


def _same_model(one: ModelName, other: ModelName) -> bool:
    return one.core == other.core and one.tuned == other.tuned and one.marks == other.marks
