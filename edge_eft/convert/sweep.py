"""Quantising a pair in one way or in many, and measuring each; `choose` takes one.

Both sides of the pair always get the same plan: same type, same importance matrix, and if only
one side has tied embeddings, the same type for both tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import default_threads
from ..backend.quantize import NEEDS_IMATRIX, UNQUANTISED
from ..convert import ConversionError
from ..files.gguf_check import read_header
from ..files.plain_text import decode
from .fidelity import Fidelity, Pair, measure
from .inputs import Masters
from .masters import Master, MasterMaker
from .options import Options
from .talk import Talk
from .workspace import Workspace

# Types whose quantisation makes no use of an importance matrix (ggml_quantize_chunk).
IGNORES_IMATRIX = UNQUANTISED | {"Q8_0"}

WINDOW = 256
MEASURED_TOKENS = 512
CALIBRATION_TOKENS = 8192
DEFAULT_TEXT = Path(__file__).with_name("calibration.txt")


@dataclass(frozen=True)
class Candidate:
    """One way to quantise the pair; files are in the workspace, or the kept adapter's."""

    type: str
    calibrated: bool
    reference: Path
    tuned: Mapping[str, Path]
    size_bytes: int
    n_fallback: int
    fidelity: Fidelity

    def figures(self) -> dict[str, Any]:
        """Return the figures for the report, as JSON values."""
        return {
            "size_bytes": self.size_bytes,
            **asdict(self.fidelity),
            "calibrated": self.calibrated,
            "fallback_tensors": self.n_fallback,
        }

    def discard(self) -> None:
        """Remove the candidate's files."""
        for path in {self.reference, *self.tuned.values()}:
            path.unlink(missing_ok=True)


class Sweep:
    """Quantises and measures one pair (or several on one reference) in a workspace."""

    def __init__(
        self,
        options: Options,
        masters: Masters,
        base: Path | None,
        n_vocab: int,
        *,
        maker: MasterMaker,
        workspace: Workspace,
        talk: Talk,
        metadata: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.options, self.masters, self.base, self.n_vocab = options, masters, base, n_vocab
        self.maker, self.workspace, self.talk, self.metadata = maker, workspace, talk, metadata
        self.figures: dict[str, list[dict[str, Any]]] = {}
        self._plans: dict[tuple[str, str], list[list[str | int]]] = {}
        self._n = 0

    # -- the text and the unquantised side ------------------------------------------------

    @property
    def text_path(self) -> Path:
        return self.options.text or DEFAULT_TEXT

    def _windows(self, path: Path, limit: int) -> list[list[int]]:
        try:
            text = decode(path.read_bytes())
        except (OSError, UnicodeDecodeError) as error:
            raise ConversionError(f"{path} cannot be read as UTF-8 text: {error}") from None
        masters = [self.masters.reference, *self.masters.tuned.values()]
        trained = [read_header(m.gguf).n_ctx_train for m in masters]
        window = min([WINDOW, *(n for n in trained if n)])
        windows = self.maker.worker.work(
            "tokenize", model=self.masters.reference.gguf, text=text, window=window, limit=limit
        )
        if not windows or len(windows[0]) < 2:
            raise ConversionError(f"{path} holds too little text to measure on")
        if any(token >= self.n_vocab for window in windows for token in window):
            raise ConversionError(f"{path} has tokens beyond the common vocabulary")
        return list(windows)

    @cached_property
    def windows(self) -> list[list[int]]:
        """The measured text as token ids."""
        return self._windows(self.text_path, MEASURED_TOKENS)

    @property
    def n_positions(self) -> int:
        return sum(map(len, self.windows))

    def _rows(self, model: Path, label: str, lora: Path | None = None) -> np.ndarray:
        self._n += 1
        target = self.workspace.path(f"rows-{self._n}.npy")
        self.workspace.check_space(4 * self.n_positions * self.n_vocab, "measuring")
        with self.talk.step(label) as progress:
            self.maker.worker.work(
                "rows",
                on_progress=progress,
                model=model,
                windows=self.windows,
                n_vocab=self.n_vocab,
                target=target,
                lora=lora,
            )
        rows: np.ndarray = np.load(target, mmap_mode="r")
        target.unlink()  # the mapping keeps it until it is let go
        return rows

    @cached_property
    def exact_pairs(self) -> list[Pair]:
        """Logits of the unquantised pairs."""
        path = self.maker.widened(self.masters.reference)
        reference = self._rows(path, "measuring the unquantised reference")
        pairs = []
        for name, master in self.masters.tuned.items():
            # Of a kept adapter what PEFT makes of it, so that the adapter's own faults count.
            model = master.merged or (path if master.lora else self.maker.widened(master))
            label = f"measuring the unquantised {name}"
            lora = None if master.merged else master.lora
            pairs.append(Pair(self._rows(model, label, lora), reference))
        return pairs

    def check_difference(self) -> None:
        """Raise ConversionError if a tuned model says what the reference says, to the last bit."""
        for master, pair in zip(self.masters.tuned.values(), self.exact_pairs, strict=True):
            if all(map(np.array_equal, pair.tuned, pair.reference)):
                raise ConversionError(
                    f"{master.source} and {self.masters.reference.source} have the same weights: "
                    "their difference is nothing; the reference is the model before tuning"
                )

    @cached_property
    def base_rows(self) -> np.ndarray | None:
        if self.base is None:
            return None
        return self._rows(self.base, "measuring the base")

    # -- quantising -----------------------------------------------------------------------

    @cached_property
    def imatrix(self) -> Path | None:
        """The joint importance matrix of the whole pair, if --calibrate names a text."""
        if self.options.calibrate is None:
            return None
        windows = self._windows(self.options.calibrate, CALIBRATION_TOKENS)
        exact = self.maker.widened(self.masters.reference)
        models: list[list[str | None]] = [[str(exact), None]]
        for master in self.masters.tuned.values():
            model = exact if master.lora else self.maker.widened(master)
            models.append([str(model), str(master.lora) if master.lora else None])
        target = self.workspace.path("importance.npz")
        with self.talk.step("calibrating tuned and reference together") as progress:
            self.maker.worker.work(
                "imatrix", on_progress=progress, models=models, windows=windows, target=target
            )
        return target

    def plan(self, master: Master, type_name: str) -> list[list[str | int]]:
        """Return [tensor, type before, type after, bytes after] for each tensor."""
        key = (master.role, type_name)
        if key not in self._plans:
            self._plans[key] = self.maker.worker.work(
                "plan", source=master.gguf, type_name=type_name, allow_requantize=True
            )
        return self._plans[key]

    def planned_size(self, type_name: str) -> int:
        """Return the bytes of the pair's files in this type, adapters too, to within a few kB."""
        total = self._adapters_size
        for master in self._own_models:
            header = read_header(master.gguf)
            total += header.file_size - header.n_bytes  # vocabulary and the like
            total += sum(int(size) for *_, size in self.plan(master, type_name))
        return total

    @cached_property
    def _adapters_size(self) -> int:
        loras = [m.lora for m in self.masters.tuned.values() if m.lora]
        return sum(path.stat().st_size for path in loras)

    @property
    def _own_models(self) -> list[Master]:
        """The masters that become files of their own: not adapters on the reference."""
        own = [m for m in self.masters.tuned.values() if m.lora is None]
        return [self.masters.reference, *own]

    @cached_property
    def _embeddings_disagree(self) -> bool:
        tied = {
            "output.weight" not in {t.name for t in read_header(m.gguf).tensors}
            for m in self._own_models
        }
        return len(tied) > 1

    def check_requantising(self, type_name: str) -> None:
        """Raise unless only unquantised tensors change, or --allow-requantize was given."""
        for master in self._own_models:
            changed = [
                str(before)
                for _, before, after, _ in self.plan(master, type_name)
                if before != after and str(before).upper() not in UNQUANTISED
            ]
            if not changed:
                continue
            what = f"{master.source} is quantised already ({changed[0].upper()})"
            if not self.options.allow_requantize:
                raise ConversionError(
                    f"{what}; use an F16, BF16 or F32 file, or pass --allow-requantize"
                )
            self.talk.warn(
                f"{what}: quantising it again adds to its errors, and the report "
                "cannot see those that it has"
            )

    def quantised(self, type_name: str, *, calibrated: bool) -> Candidate:
        """Quantise, check and measure the pair in one type."""
        options: dict[str, Any] = {
            "allow_requantize": self.options.allow_requantize,
            "n_threads": default_threads()[0],
            "imatrix": self.imatrix if calibrated else None,
        }
        if self._embeddings_disagree and type_name not in UNQUANTISED:
            plan = {
                str(name): after
                for name, _, after, _ in self.plan(self.masters.reference, type_name)
            }
            options["output_type"] = plan.get("output.weight", plan["token_embd.weight"])
        suffix = f"{type_name}{'-calibrated' if calibrated else ''}.gguf"
        shown = f"{type_name}{', calibrated' if calibrated else ''}"
        files: dict[str, Path] = {}
        for master in self._own_models:
            target = self.workspace.path(f"{master.role.replace(':', '-')}-{suffix}")
            with self.talk.step(f"{master.role} → {shown}") as progress:
                self.maker.worker.work(
                    "quantize",
                    on_progress=progress,
                    source=master.gguf,
                    target=target,
                    type_name=type_name,
                    metadata=self.metadata[master.role],
                    **options,
                )
            self.maker.worker.work("probe", model=target)
            files[master.role] = target
        reference = files["reference"]
        tuned = {
            name: master.lora or files[master.role] for name, master in self.masters.tuned.items()
        }
        n_fallback = _check_alike(list(files.values()), type_name)
        size = sum(path.stat().st_size for path in {reference, *tuned.values()})
        reference_rows = self._rows(reference, f"measuring reference {shown}")
        pairs = []
        for name, master in self.masters.tuned.items():
            model = reference if master.lora else tuned[name]
            pairs.append(
                Pair(self._rows(model, f"measuring {name} {shown}", master.lora), reference_rows)
            )
        alpha = self.options.alpha if self.base is not None else 1.0
        fidelity = measure(self.exact_pairs, pairs, self.base_rows, alpha)
        candidate = Candidate(type_name, calibrated, reference, tuned, size, n_fallback, fidelity)
        self.figures.setdefault(type_name, []).append(candidate.figures())
        return candidate

    def best_of_type(self, type_name: str) -> Candidate:
        """Return the pair in one type; with --calibrate the better of calibrated and not."""
        if self.options.calibrate is None or type_name in IGNORES_IMATRIX:
            return self.quantised(type_name, calibrated=False)
        calibrated = self.quantised(type_name, calibrated=True)
        if type_name in NEEDS_IMATRIX:
            return calibrated
        plain = self.quantised(type_name, calibrated=False)
        better, worse = sorted((calibrated, plain), key=lambda c: c.fidelity.kl_mean)
        worse.discard()
        return better

    def check_space(self, n_bytes: int) -> None:
        """Raise unless the disk has room for `n_bytes` of pairs and for measuring one."""
        rows = 4 * self.n_positions * self.n_vocab * (2 + 2 * len(self.masters.tuned))
        self.workspace.check_space(n_bytes + rows, f"the pair in {self.options.type.lower()}")


def _check_alike(files: list[Path], type_name: str) -> int:
    """Raise unless the tensors that all files have are of the same types in all.

    Returns how many tensors of the first are of a type outside the mix's family: rows that
    K-quants cannot divide fall back to simpler types.
    """
    types = [{t.name: t.type for t in read_header(path).tensors} for path in files]
    for other in types[1:]:
        for name in types[0].keys() & other.keys():
            if types[0][name] != other[name]:
                raise ConversionError(
                    f"the two sides of the pair differ in type: {name} is {types[0][name]} and "
                    f"{other[name]}; use an unquantised file for both"
                )
    if "_K" not in type_name and not type_name.startswith("IQ"):
        return 0
    family = ("_K",) if "_K" in type_name else ("IQ", "_K")
    quantised = [t for t in types[0].values() if t not in UNQUANTISED]
    return sum(not any(mark in t for mark in family) for t in quantised)
