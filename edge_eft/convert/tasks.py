"""The native work (quantising, calibrating, measuring), done in a child process.

`main` reads jobs as lines of JSON from stdin and answers each with events as lines of JSON on
stdout: any number of {"progress": [done, total]}, then {"result": …} or {"error": "…"}. When stdin
ends, because the parent (`worker.py`) is done or dead, so does the child, even in the middle of
native code.

Each `task_NAME` is called with JSON values (paths as `Path`) and returns one. Measuring uses the
exact cache (F32 KV, no flash attention) and one thread, on the CPU: rounding there would blur what
rounding the weights did.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ..backend import EXACT_CACHE, Context, Model, default_threads, quantize
from ..backend.imatrix import ImportanceCollector
from ..errors import ConversionError, EdgeEftError, EngineError
from ..text.vocabulary import CONTROL, USER_DEFINED, reconcile

Progress = Callable[[int, int], None]

_PATHS = frozenset({"source", "target", "model", "lora", "imatrix"})


def task_plan(source: Path, type_name: str, progress: Progress, **options: Any) -> list[Any]:
    """Return [[tensor, type before, type after, bytes after]] without writing anything."""
    planned = quantize.plan(source, type_name, **options)
    return [[t.name, t.source_type, t.target_type, t.size_bytes] for t in planned]


def task_quantize(
    source: Path,
    target: Path,
    type_name: str,
    progress: Progress,
    imatrix: Path | None = None,
    **options: Any,
) -> None:
    """Write `target`; see `backend.quantize.quantize` for the options."""
    importance = _load_imatrix(imatrix) if imatrix else None
    quantize.quantize(
        source, target, type_name, on_progress=progress, imatrix=importance, **options
    )


def _load_imatrix(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return what `task_imatrix` wrote: tensor name → (n_columns,) float32."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: np.ascontiguousarray(arrays[name], np.float32) for name in arrays.files}


def task_vocabulary(models: Mapping[str, str], progress: Progress) -> dict[str, Any]:
    """Check that the roles' models can be combined. Returns their common width, and warnings."""
    loaded = {role: Model(path, n_gpu_layers=0, vocab_only=True) for role, path in models.items()}
    common = reconcile(loaded)
    return {"n_vocab": common.n_vocab, "warnings": list(common.warnings)}


def task_ends(
    model: Path, wanted: list[int | str], progress: Progress
) -> dict[str, list[int | str]]:
    """Return which of the wanted end tokens, ids or texts, the model does not end at by itself.

    Returns {"missing": control tokens as texts, others as ids; "unknown": not in the vocabulary}.
    """
    loaded = Model(model, n_gpu_layers=0, vocab_only=True)
    texts = loaded.token_texts()
    missing: list[int] = []
    unknown: list[int | str] = []
    for token in wanted:
        found = [token] if isinstance(token, int) else _ids_of(token, texts)
        if not found or not 0 <= found[0] < len(texts):
            unknown.append(token)
        elif found[0] not in loaded.end_tokens:
            missing.append(found[0])
    special = loaded.token_attributes() & (CONTROL | USER_DEFINED)
    shown = [texts[i].decode("utf-8", "replace") if special[i] else i for i in missing]
    return {"missing": list(dict.fromkeys(shown)), "unknown": unknown}


def _ids_of(text: str, texts: list[bytes]) -> list[int]:
    raw = text.encode("utf-8", "replace")
    return [texts.index(raw)] if raw in texts else []


def task_tokenize(model: Path, text: str, window: int, limit: int, progress: Progress) -> list[Any]:
    """Cut the text into windows of token ids, each beginning with BOS if the model wants one.

    Returns a list of lists of at most `window` ids, `limit` ids together (BOS not counted).
    """
    loaded = Model(model, n_gpu_layers=0, vocab_only=True)
    tokens = loaded.tokenize(text)[:limit]
    start = [loaded.bos_token] if loaded.add_bos and loaded.bos_token is not None else []
    step = window - len(start)
    windows = [start + tokens[i : i + step] for i in range(0, len(tokens), step)]
    return [w for w in windows if len(w) > len(start) + 1] or windows[:1]


def task_probe(model: Path, progress: Progress, lora: Path | None = None) -> None:
    """Load the model as a user would, decode a few tokens, and insist on finite logits."""
    loaded = Model(model, n_gpu_layers=0)
    tokens = np.arange(min(8, loaded.n_vocab), dtype=np.int32)
    context = _exact_context(loaded, len(tokens), lora)
    rows = context.advance({0: (tokens, len(tokens))})[0]
    if not np.isfinite(rows).all():
        raise ConversionError(f"{model.name} gives logits that are not finite; nothing was kept")


def task_rows(
    model: Path,
    windows: list[list[int]],
    n_vocab: int,
    target: Path,
    progress: Progress,
    lora: Path | None = None,
) -> list[int]:
    """Write the logits after every token of every window: (positions, n_vocab) float32, .npy.

    Returns its shape. Columns beyond `n_vocab`, the common width, are cut off.
    """
    loaded = Model(model, n_gpu_layers=0)
    context = _exact_context(loaded, max(map(len, windows)), lora)
    shape = (sum(map(len, windows)), n_vocab)
    done = 0
    # Written, not mapped: a store into a page that a full disk has no room for is SIGBUS.
    with open(target, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for window in windows:
            rows = _rows(context, np.array(window, np.int32))[:, :n_vocab]
            if not np.isfinite(rows).all():
                raise ConversionError(f"{model.name} gives logits that are not finite on the text")
            file.write(rows.astype("<f4").tobytes())
            done += len(window)
            progress(done, shape[0])
    return list(shape)


def _rows(context: Context, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    return context.advance({0: (tokens, len(tokens))})[0]


def _exact_context(
    model: Model, n_ctx: int, lora: Path | None, *, n_threads: int = 1, cb_eval: Any = None
) -> Context:
    """Return a context whose own rounding is negligible, for up to `n_ctx` rows at once."""
    if model.n_ctx_train and n_ctx > model.n_ctx_train:
        raise EngineError(f"{model.name} was trained for {model.n_ctx_train} tokens, not {n_ctx}")
    return Context(
        model,
        n_ctx=n_ctx,
        n_threads=n_threads,
        n_outputs=n_ctx,
        cache=EXACT_CACHE,
        lora=model.load_adapter(lora) if lora else None,
        cb_eval=cb_eval,
    )


def task_imatrix(
    models: list[list[str | None]], windows: list[list[int]], target: Path, progress: Progress
) -> int:
    """Write the joint importance matrix of [[model, adapter or None]] on the text, as .npz.

    Returns how many matrices it covers.
    """
    collector = ImportanceCollector()
    total = len(models) * len(windows)
    for i, (path, lora) in enumerate(models):
        loaded = Model(str(path), n_gpu_layers=0)
        context = _exact_context(
            loaded,
            max(map(len, windows)),
            Path(lora) if lora else None,
            n_threads=default_threads()[0],
            cb_eval=collector.callback,
        )
        for j, window in enumerate(windows):
            context.advance({0: (np.array(window, np.int32), 1)})
            collector.check()
            progress(i * len(windows) + j + 1, total)
        context.close()
        loaded.close()
    means = collector.means()
    np.savez(target, allow_pickle=False, **means)
    return len(means)


# -- the child's end -----------------------------------------------------------------------


def main() -> None:
    """Do the jobs that stdin names, one after the other."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # native code that prints must not break the protocol
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    while True:
        job = json.loads(jobs.get())
        try:
            _emit(events, result=_run(job, events))
        except EdgeEftError as error:
            _emit(events, error=str(error))


def _read_jobs(jobs: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


def _emit(events: TextIO, **event: Any) -> None:
    """Write one event; end the process if the parent is gone."""
    try:
        events.write(json.dumps(event) + "\n")
        events.flush()
    except OSError:
        os._exit(1)


def _run(job: dict[str, Any], events: TextIO) -> Any:
    def progress(done: int, total: int) -> None:
        _emit(events, progress=[done, total])

    task = globals()[f"task_{job.pop('task')}"]
    arguments = {
        key: Path(value) if key in _PATHS and value is not None else value
        for key, value in job.items()
    }
    return task(progress=progress, **arguments)


if __name__ == "__main__":
    main()
