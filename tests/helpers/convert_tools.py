"""For the converter's tests: running it, and logits from llama.cpp without edge_eft."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np

from edge_eft.backend.library import start_library
from edge_eft.convert.job import convert
from edge_eft.convert.options import Options
from edge_eft.convert.publish import Outcome
from edge_eft.convert.talk import Talk

ROOT = Path(__file__).resolve().parents[2]

# Tiny models know few letters; the rest of a text becomes bytes, which they know, too.
TEXT = "The red one is in the house, and the green one is on it. " * 4


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """`edge-eft convert …`, to its end."""
    return subprocess.run(
        command_line(*arguments), capture_output=True, text=True, timeout=280, **options
    )


def command_line(*arguments: object) -> list[str]:
    """The arguments that start the converter."""
    return [sys.executable, "-m", "edge_eft", "convert", *map(str, arguments)]


def convert_quietly(reference: Path, tuned: Path, out: Path, **options: object) -> Outcome:
    """One conversion in this process, of one delta, called `pair` unless a name is given."""
    chosen = {"name": "pair", **options}
    return convert(Options(reference=reference, tuned={"tuned": tuned}, out=out, **chosen), Talk())


def left_in(directory: Path) -> list[str]:
    """Names of all that lies in a directory, hidden files included; [] if there is none."""
    return sorted(os.listdir(directory)) if directory.exists() else []


def exact_logits(model: Path, tokens: Sequence[int], lora: Path | None = None) -> np.ndarray:
    """(len(tokens), vocab) float64, decoded token by token: F32 KV, no flash attention."""
    start_library()  # for its quiet log only
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    loaded = llama_cpp.llama_model_load_from_file(os.fsencode(model), parameters)
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(loaded))
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = len(tokens)
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
    options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(loaded, options)
    if lora is not None:
        adapter = llama_cpp.llama_adapter_lora_init(loaded, os.fsencode(lora))
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
        scale = (llama_cpp.ctypes.c_float * 1)(1.0)
        assert llama_cpp.llama_set_adapters_lora(context, adapters, 1, scale) == 0
    rows = []
    for token in tokens:
        batch = llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(token), 1)
        assert llama_cpp.llama_decode(context, batch) == 0
        pointer = llama_cpp.llama_get_logits_ith(context, -1)
        rows.append(np.ctypeslib.as_array(pointer, (n_vocab,)).astype(np.float64))
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(loaded)
    return np.array(rows)


def compare(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return (max abs difference, top-1 agreement)."""
    agreement = np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1))
    return float(np.abs(ours - theirs).max()), float(agreement)
