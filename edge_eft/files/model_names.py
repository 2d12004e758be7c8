"""What names of models say: which are one model, the family, the size, tuned or not.

Names follow the habits of those who publish models and prove nothing. They say which files to
compare; this module knows no file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .gguf_split import model_stem

MAX_NAME = 512  # characters; what is longer is no name, and is not read to its end

MAX_NAME = 512  # characters; what is longer is no name, and is not read to its end

# Whole words; `it` is Google's, `pt` its opposite.
TUNED = frozenset({"instruct", "chat", "it", "assistant", "sft", "dpo", "rlhf"})
BASE = frozenset({"base", "pt", "pretrain", "pretrained", "foundation"})
_ALSO_TUNED = {"thinking", "reasoning", "tuned", "finetuned"}
_ALSO_BASE = {"reference"}  # as our converter names it

# A family's models without such a word: of some the tuned one, of most the pre-trained one.
_PLAINLY_TUNED = ("qwen3", "granite", "smollm3", "phi", "gptoss")
_PLAINLY_BASE = (
    *("qwen", "llama", "tinyllama", "codellama", "gemma", "smollm", "olmo", "falcon"),
    *("mistral", "ministral", "pythia", "gpt2", "yi", "stablelm"),
)
# Other words that makers put into names; any more are of somebody who went on from there.
_VARIANTS = {"coder", "math", "mini", "small", "micro", "nano", "tiny", "medium", "large", "moe"}
_QUANTISATION = re.compile(
    r"(?<![a-z0-9])(?:ud-)?(?:i?q\d(?:_(?:\d|k|xxs|xs|s|m|l|xl|nl))*|t?q\d_\d|bf16|fp?16|fp?32"
    r"|mxfp4(?:_moe)?|nvfp4|imat(?:rix)?|i1)(?![a-z0-9])"
)
_PACKING = re.compile(
    r"[-._](gguf|i?q\d[\w.]*|mxfp4|fp?16|bf16|f32|(unsloth-)?bnb-\d-?bit|\d-?bit|unsloth|hf)$"
)
_STATED = re.compile(
    r"(?i)(?:^|[-._/])((?:UD-)?(?:I?Q\d\w*|TQ\d_0|MXFP4\w*|NVFP4|BF16|F16|F32|FP16|FP32))(?=$|[-.])"
)
_SIZE = re.compile(r"[ae]?\d+(?:\.\d+)?[bmt]|\d+x\d+(?:\.\d+)?b")
_MARK = re.compile(r"\d{4}|v\d+(?:\.\d+)*")  # a date or a version
_NUMBER = re.compile(r"\d{1,2}(?:\.\d+)?")
_NOISE = re.compile(r"gguf|ggml|hf|model|latest|intermediate|step|\d+k|of|\d{5}|uncased")
_PUBLISHERS = {
    *("meta", "google", "tiiuae", "ibm", "microsoft", "allenai", "huggingfacetb", "mistralai"),
    *("unsloth", "bartowski", "thebloke", "mradermacher", "quantfactory", "lmstudio", "community"),
}
# Models that do not write text, or not on.
_NO_WRITER = {"embed", "embedding", "embeddings", "rerank", "reranker", "reward", "mmproj", "clip"}


@dataclass(frozen=True)
class ModelName:
    """A name, taken apart.

    Attributes:
        core: the words that name the family, such as {"qwen2.5", "coder"}; empty if it says none.
        tuned: whether it says that the model was tuned; None if it does not say.
        marks: dates and versions.
        sizes: such as {"0.6b"}, as the name has them.
        writes: whether it is a name of a model that writes text.
    """

    core: frozenset[str]
    tuned: bool | None
    marks: frozenset[str]
    sizes: frozenset[str]
    writes: bool

    @property
    def series(self) -> frozenset[str]:
        """`core` without minor versions: Llama 3.1 and 3.2 are of one series."""
        return frozenset(re.sub(r"(?<=\d)\.\d+$", "", word) for word in self.core)

    @property
    def plainly_tuned(self) -> bool | None:
        """What its family means by a name that does not say; None if that is not known here."""
        for families, tuned in ((_PLAINLY_TUNED, True), (_PLAINLY_BASE, False)):
            named = {word for word in self.core if word.startswith(families)}
            if named and self.core <= named | _VARIANTS:
                return tuned
        return None


def model_name(text: str) -> ModelName:
    """Take a name apart: of a file (without its suffix), a repository, or in a header."""
    words = _words(text)
    labels = set(words) & (TUNED | BASE | _ALSO_TUNED | _ALSO_BASE)
    tuned = not labels & (BASE | _ALSO_BASE) if labels else None
    if "distill" in words:
        tuned = True
    sizes = {word for word in words if _SIZE.fullmatch(word)}
    marks = {word for word in words if _MARK.fullmatch(word)}
    rest = [w for w in words if w not in labels | sizes | marks | _PUBLISHERS]
    core = frozenset(word for word in rest if not _NOISE.fullmatch(word))
    return ModelName(core, tuned, frozenset(marks), frozenset(sizes), not core & _NO_WRITER)


def quantisation(name: str) -> str:
    """Return the quantisation that a file's name or folder states, such as "Q8_0"; "" if none."""
    found = _STATED.findall(model_stem(Path(name))) or _STATED.findall(name.rpartition("/")[0])
    return found[-1].upper() if found else ""


def words(name: str) -> frozenset[str]:
    """Return the words that a name is made of, in lower case."""
    return frozenset(re.split(r"[^a-z0-9.]+", name.lower())) - {""}


def plain_name(name: str) -> str:
    """Return a model's name without its owner, its directory and how it was packed.

    Of "unsloth/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf" and "./Qwen3-0.6B" that is "qwen3-0.6b".
    """
    found = re.split(r"[/\\]", name.strip().rstrip("/\\"))[-1][:MAX_NAME]
    found = found.lower().replace(" ", "-")
    while (shorter := _PACKING.sub("", found)) != found and shorter:
        found = shorter
    return found


def says_before_tuning(name: str, tuned: Iterable[str]) -> bool:
    """Return whether `name` says that it is what one of the `tuned` names was tuned from."""
    here = words(plain_name(name))
    if not here or here & TUNED:
        return False
    return bool(here & BASE) or any(
        words(plain_name(other)) & TUNED and words(plain_name(other)) - TUNED == here
        for other in tuned
    )


def _words(text: str) -> list[str]:
    plain = _QUANTISATION.sub(" ", text[:MAX_NAME].lower())
    words = [word.strip(".") for word in re.split(r"[^a-z0-9.]+", plain)]
    words = [word for word in words if word]
    # "Qwen_Qwen3-8B": the publisher, again in the name.
    again = itertools.pairwise([*words, ""])
    words = [word for word, after in again if not (after.startswith(word) and after != word)]
    joined: list[str] = []
    for word in words:  # "Llama-3.2" and "llama3.2", "OLMo-2" and "olmo2"
        if _NUMBER.fullmatch(word) and joined and joined[-1].isalpha():
            joined[-1] += word
        else:
            joined.append(word)
    return joined
