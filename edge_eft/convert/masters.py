"""From each input to its master: the unquantised GGUF file that everything else is made from.

A Hugging Face directory becomes an F32 file through llama.cpp's script; a PEFT adapter is merged
first, and if it is kept, the merged model is what it is compared with; a GGUF file is its own
master. For measuring, masters of fewer bits are widened to F32, so that the reference's own
arithmetic does not round activations to 16 bits.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..convert import ConversionError
from ..files.gguf_check import GGUFHeader, read_header
from ..files.hf_directory import shown_name, without_marks
from .adapter_strength import check_strength
from .scripts import find_scripts, hf_to_gguf, lora_to_gguf, require_modules, run_script
from .sources import Source
from .talk import Talk
from .worker import Worker
from .workspace import Workspace

_SMALL_BYTES = 512 << 20
_DTYPES = {"bfloat16": "bf16", "float16": "f16"}
_TOKENIZER_PARTS = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template*",
    "*.tiktoken",
    "tekken.json",
)


@dataclass(frozen=True)
class Master:
    """The unquantised form of one role.

    Attributes:
        source: the input it was made from.
        gguf: what to quantise; for an adapter that is kept, its reference's.
        lora: the adapter as GGUF, if it is kept.
        merged: F32 model of reference and kept adapter as PEFT merges them; None of a GGUF adapter.
        temporary: `gguf` is ours, in the workspace.
    """

    source: Source
    gguf: Path
    lora: Path | None = None
    merged: Path | None = None
    temporary: bool = True

    @property
    def role(self) -> str:
        return self.source.role


class MasterMaker:
    """Makes masters in a workspace, and finds llama.cpp's scripts when they are first needed."""

    def __init__(
        self, workspace: Workspace, worker: Worker, talk: Talk, llama_cpp: Path | None
    ) -> None:
        self.workspace = workspace
        self.worker = worker
        self.talk = talk
        self._checkout = llama_cpp
        self._scripts: Path | None = None
        self._made: dict[str, Master] = {}

    @property
    def scripts(self) -> Path:
        if self._scripts is None:
            require_modules()
            with self.talk.step("llama.cpp's conversion scripts"):
                self._scripts = find_scripts(self._checkout)
        return self._scripts

    def vocabulary_file(self, source: Source) -> Path:
        """Return a GGUF with the source's vocabulary; of a large directory, one without weights.

        A script spends most of its time importing torch, so a small directory is converted whole.
        """
        if source.kind == "gguf" or 4 * source.n_parameters <= _SMALL_BYTES:
            return self.make(source).gguf
        target = self.workspace.path(f"{_file_stem(source)}-vocabulary.gguf")
        hf_to_gguf(
            self.scripts,
            self._readable(source),
            target,
            dtype="f32",
            name=shown_name(source.path),
            vocab_only=True,
        )
        return target

    def make(self, source: Source) -> Master:
        """Return the master of a model: F32, but a base keeps the type that its directory has."""
        if source.kind == "gguf":
            return Master(source, source.path, temporary=False)
        if source.role not in self._made:
            self._made[source.role] = Master(source, self._converted(source))
        return self._made[source.role]

    def _converted(self, source: Source) -> Path:
        target = self.workspace.path(f"{_file_stem(source)}-master.gguf")
        stored = source.config.get("dtype") or source.config.get("torch_dtype")
        dtype = _DTYPES.get(str(stored), "f32") if source.role == "base" else "f32"
        with self.talk.step(f"{source.role}: Hugging Face → GGUF ({dtype})") as progress:
            hf_to_gguf(
                self.scripts,
                self._readable(source),
                target,
                dtype=dtype,
                name=shown_name(source.path),
                on_progress=progress,
            )
        return target

    def make_kept_adapter(self, adapter: Source, reference: Master) -> Master:
        """Return the adapter as GGUF, tested against what PEFT merges, on its reference's master.

        Raises:
            ConversionError: a GGUF adapter cannot do what the PEFT adapter does.
        """
        if adapter.kind == "lora":
            return Master(adapter, reference.gguf, adapter.path, temporary=False)
        kept = self.workspace.path(f"{_file_stem(adapter)}-kept")
        merged = self.make_merged(adapter, reference.source, kept)
        target = self.workspace.path(f"{_file_stem(adapter)}-adapter.gguf")
        with self.talk.step(f"{adapter.role}: PEFT adapter → GGUF"):
            lora_to_gguf(self.scripts, kept, self._readable(reference.source), target)
        check_strength(target, reference.gguf, merged.gguf, str(adapter))
        return Master(adapter, reference.gguf, target, merged.gguf)

    def make_merged(self, adapter: Source, reference: Source, kept: Path | None = None) -> Master:
        """Return the master of reference + adapter, merged by peft.

        `kept` is made a PEFT directory of the adapter with one strength for all modules
        (`merge_lora`).
        """
        require_modules("peft")
        merged = self.workspace.path(f"{_file_stem(adapter)}-merged")
        paths = [self._readable(reference), self._readable(adapter), merged, *filter(None, [kept])]
        with self.talk.step(f"{adapter.role}: merging the adapter"):
            script = Path(__file__).with_name("merge_lora.py")
            try:
                run_script(script, list(map(str, paths)))
            except ConversionError as error:
                raise ConversionError(f"{adapter.path}: {error}") from None
        for directory in paths[:2]:
            _copy_tokenizer(directory, merged)
        master = self.make(replace(adapter, path=merged, kind="hf"))
        shutil.rmtree(merged)
        return replace(master, source=adapter)

    def _readable(self, source: Source) -> Path:
        """Return the source's directory in a form that llama.cpp's scripts and peft can read."""
        view = self.workspace.path(f"{_file_stem(source)}-{source.kind}-readable")
        return view if view.exists() else without_marks(source.path, view)

    def widened(self, master: Master) -> Path:
        """Return an F32 file with the master's values, for measuring."""
        header = read_header(master.gguf)
        if all(tensor.type == "F32" for tensor in header.tensors):
            return master.gguf
        target = self.workspace.path(f"{_file_stem(master.source)}-exact.gguf")
        if not target.exists():
            size = 4 * header.n_parameters
            self.workspace.check_space(size, f"widening {master.gguf.name} for measuring")
            with self.talk.step(f"{master.role}: widening to F32 for measuring") as progress:
                self.worker.work(
                    "quantize",
                    on_progress=progress,
                    source=master.gguf,
                    target=target,
                    type_name="F32",
                    allow_requantize=True,
                )
        return target


def hf_bytes(source: Source) -> int:
    """Return about how many bytes the F32 master of a directory takes."""
    return 4 * source.n_parameters if source.kind == "hf" else 0


def hyperparameters(header: GGUFHeader) -> dict[str, Any]:
    """Return the architecture's own keys, which decide all shapes but the vocabulary's."""
    prefix = header.architecture + "."
    ignored = {f"{prefix}vocab_size", f"{prefix}context_length"}
    return {k: v for k, v in header.metadata.items() if k.startswith(prefix) and k not in ignored}


def _copy_tokenizer(source: Path, target: Path) -> None:
    for pattern in _TOKENIZER_PARTS:
        for path in source.glob(pattern):
            shutil.copyfile(path, target / path.name)


def _file_stem(source: Source) -> str:
    return source.role.replace(":", "-")
