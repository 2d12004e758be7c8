"""From a PEFT LoRA to a GGUF one, with NumPy alone: names, the order of rows, one strength for all.

llama.cpp's script does the same with torch and transformers for every architecture that it knows.
Here are those whose matrices it takes as they are, or with the rows of queries and keys reordered;
tests compare the two. The model's GGUF says which architecture it is and how many heads it has, so
that no Hugging Face configuration is needed. What a GGUF adapter cannot carry is refused (`peft`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelFileError
from .adapter_check import check_adapter_fits
from .gguf_check import GGUFHeader
from .gguf_header import TensorInfo, quoted
from .peft import WEIGHTS, PeftAdapter, beyond_lora, beyond_numbers, is_number
from .plain_text import reason
from .safetensors_file import safetensors_values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# GGUF architecture → whether llama.cpp reorders the rows of its queries and keys, from the halves
# of Hugging Face's rotary embedding to pairs (`undo_permute` in its conversion/llama.py).
REORDERED = {
    **dict.fromkeys(("llama", "granite", "smollm3"), True),
    **dict.fromkeys(("qwen2", "qwen3", "gemma", "gemma2", "gemma3", "olmo2", "phi3"), False),
}
_PREFIX = "base_model.model."
_QUERY, _KEY = re.compile(r"blk\.\d+\.attn_q\.weight"), re.compile(r"blk\.\d+\.attn_k\.weight")
# Parts of a model that see and hear; a text meets none of them.
_OTHER_SENSES = re.compile(r"(model\.)?(vision|visual|audio|multi_modal_projector)[._]?")
# A pattern of PEFT's is a regular expression: of a stranger's only what cannot run for ever, that
# is, without repetition and with few ways through its alternatives.
_SAFE_PATTERN = re.compile(r"[\w.\\|()\[\]^$-]{,1000}")
_MAX_WAYS, _MAX_PATTERNS = 1000, 10_000
_SMALLEST = 1e-30  # an α that float32 still has
INSTEAD = (
    "merge it: edge-eft convert --reference MODEL-DIR --tuned ADAPTER-DIR, where MODEL-DIR is the "
    "Hugging Face directory that it was trained on"
)


def places(adapter: PeftAdapter, model: GGUFHeader) -> dict[str, str]:
    """Return tensor of the model → module of the adapter that changes it.

    Args:
        model: the header of the model that the adapter is put on.

    Raises:
        ModelFileError: it is more than a GGUF adapter can be, of an architecture that is not
            known here, or does not fit the model.
    """
    if model.architecture not in REORDERED:
        raise ModelFileError(
            f"{adapter.path}: a PEFT adapter of a {model.architecture} is converted by llama.cpp's "
            "script alone: edge-eft convert --keep-lora --reference MODEL-DIR --tuned ADAPTER-DIR "
            "makes the .gguf file to give here"
        )
    found = beyond_lora(adapter.config, adapter.shapes) or beyond_numbers(adapter.config)
    if found:
        raise ModelFileError(
            f"{adapter.path} {found[0]} ({found[1]}), which an adapter of llama.cpp cannot carry; "
            f"{INSTEAD}"
        )
    placed: dict[str, str] = {}
    for module in sorted({name.partition(".lora_")[0] for name in adapter.shapes}):
        path = module.removeprefix(_PREFIX)
        if _OTHER_SENSES.match(path):
            continue
        tensor = _gguf_name(path, model)
        if tensor is None or tensor in placed:
            raise ModelFileError(
                f"{adapter.path} does not fit {model.path.name}: it changes {quoted(path)}, which "
                f"a {model.architecture} lacks; give the model that it was trained on"
            )
        placed[tensor] = module
    if not placed:
        raise ModelFileError(f"{adapter.path} changes nothing: it holds no LoRA matrices")
    _check_shapes(adapter, model, placed)
    return placed


def _gguf_name(path: str, model: GGUFHeader) -> str | None:
    import gguf

    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(numbers[model.architecture], model.n_layer)
    name = names.get_name(path.replace("language_model.", ""))  # of a model with several parts
    return f"{name}.weight" if name else None


def _check_shapes(adapter: PeftAdapter, model: GGUFHeader, placed: Mapping[str, str]) -> None:
    """Check pairs as those of a GGUF adapter, which has the innermost dimension first."""
    tensors = []
    for tensor, module in placed.items():
        sides = [adapter.shapes.get(f"{module}.lora_{side}.weight", ()) for side in "AB"]
        if any(len(shape) != 2 for shape in sides) or sides[0][0] != sides[1][1]:
            a, b = (" × ".join(map(str, shape)) or "missing" for shape in sides)
            raise ModelFileError(
                f"{adapter.path}: lora_A ({a}) and lora_B ({b}) of {module.removeprefix(_PREFIX)} "
                "are not a pair of one rank; save the adapter again"
            )
        for side, shape in zip("ab", sides, strict=True):
            tensors.append(TensorInfo(f"{tensor}.lora_{side}", shape[::-1], "F32", 0, 0))
    check_adapter_fits(
        GGUFHeader(
            path=adapter.path,
            file_size=0,
            version=3,
            architecture=model.architecture,
            metadata={},
            tensors=tuple(tensors),
            parts=(),
            data_starts=(),
        ),
        model,
    )


def to_gguf(adapter: PeftAdapter, model: GGUFHeader, target: Path) -> None:
    """Write a PEFT LoRA as a GGUF adapter of F32 matrices for a model.

    PEFT's strength of each module, α/r or α/√r of its own α and r, is written into its B wherever
    it is not that of the file: α/r is the only one that a GGUF adapter knows (llama-adapter.h).

    Raises:
        ModelFileError: as `places`; or its numbers cannot be read, or are all zero.
        OSError: `target` cannot be written.
    """
    placed = places(adapter, model)
    try:
        data = (adapter.path / WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelFileError(f"{error.filename}: cannot be read ({reason(error)})") from None
    values = dict(safetensors_values(data, adapter.path / WEIGHTS))
    alphas = _alphas(adapter, placed.values())
    alpha = max(alphas.values(), key=abs)
    if abs(alpha) < _SMALLEST or not any(
        values[f"{module}.lora_B.weight"].any() for module in alphas
    ):
        raise ModelFileError(
            f"{adapter.path} was never trained: its B matrices, or its lora_alpha, are zero; give "
            "the trained one"
        )
    pairs = {}
    for tensor, module in placed.items():
        b = _reordered(values[f"{module}.lora_B.weight"], tensor, model)
        pairs[f"{tensor}.lora_a"] = values[f"{module}.lora_A.weight"]
        pairs[f"{tensor}.lora_b"] = b if alphas[module] == alpha else b * (alphas[module] / alpha)
    _write(target, model.architecture, alpha, adapter.base_name, pairs)


def _alphas(adapter: PeftAdapter, modules: Iterable[str]) -> dict[str, float]:
    """Return the strength × the rank of each module.

    Raises ModelFileError if ranks are not those of the configuration, or patterns cannot be read.
    """
    config = adapter.config
    ranks, strengths = (_Patterns(adapter, key) for key in ("rank_pattern", "alpha_pattern"))
    alphas = {}
    for module in modules:
        name = module.removeprefix(_PREFIX)
        rank = adapter.shapes[f"{module}.lora_A.weight"][0]
        stated = ranks.of(name, config.get("r", rank))
        if stated != rank:
            raise ModelFileError(
                f"{adapter.path}: {name} is of rank {rank}, and its configuration says "
                f"{stated!r:.40}; save the adapter again"
            )
        alpha = float(strengths.of(name, config.get("lora_alpha", 8)))
        alphas[module] = alpha * math.sqrt(rank) if config.get("use_rslora") else alpha
    return alphas


class _Patterns:
    """Numbers by expressions for the names of modules; the first that fits counts.

    As in PEFT's `get_pattern_key`.
    """

    def __init__(self, adapter: PeftAdapter, key: str) -> None:
        self._found: list[tuple[re.Pattern[str], Any]] = []
        self._where = f"{adapter.path}: {key}"
        patterns: Any = adapter.config.get(key) or {}
        if not isinstance(patterns, dict) or len(patterns) > _MAX_PATTERNS:
            raise ModelFileError(f"{self._where} is no table of modules; save the adapter again")
        for pattern, value in patterns.items():
            ways = math.prod(group.count("|") + 1 for group in re.split("[()]", pattern))
            if not _SAFE_PATTERN.fullmatch(pattern) or ways > _MAX_WAYS:
                raise ModelFileError(
                    f"{self._where} has the expression {quoted(pattern)}, which only PEFT reads; "
                    f"{INSTEAD}"
                )
            try:
                self._found.append((re.compile(rf"(.*\.)?({pattern})"), value))
            except (re.error, RecursionError):
                raise ModelFileError(
                    f"{self._where} has {quoted(pattern)}, no expression"
                ) from None

    def of(self, name: str, default: Any) -> Any:
        """Return the number for a module, `default` if no pattern fits."""
        value = next((value for each, value in self._found if each.fullmatch(name)), default)
        if value is not default and not is_number(value):
            raise ModelFileError(f"{self._where} has {value!r:.60}, not a number")
        return value


def _reordered(b: NDArray[np.float32], tensor: str, model: GGUFHeader) -> NDArray[np.float32]:
    """Return the B (n_out, rank) of a tensor with its rows as the GGUF has them."""
    if not REORDERED[model.architecture]:
        return b
    if _QUERY.fullmatch(tensor):
        n_head = model.per_layer("attention.head_count")[0]
    elif _KEY.fullmatch(tensor):
        heads = model.per_layer("attention.head_count")
        n_head = model.per_layer("attention.head_count_kv", heads[0])[0]
    else:
        return b
    if len(b) % (2 * n_head):
        raise ModelFileError(
            f"{model.path}: {tensor} has {len(b)} rows, which its {n_head} heads cannot share"
        )
    halves = b.reshape(n_head, 2, len(b) // n_head // 2, -1)
    return halves.swapaxes(1, 2).reshape(b.shape)


def _write(
    target: Path,
    architecture: str,
    alpha: float,
    base_name: str,
    pairs: Mapping[str, NDArray[np.float32]],
) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(target, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    if base_name:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, base_name)
    for name, values in pairs.items():
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
