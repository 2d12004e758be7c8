"""A child process that loads three models, fills every slot, and says what memory it took.

    python -m helpers.memory_peak BASE TUNED REFERENCE N_CTX N_SLOTS

prints one line of JSON with bytes: `estimate`, and `peak`, the most resident memory (Linux) less
what the process had before it loaded a model. Contexts are filled up to the last micro-batch with a
cache of one token's keys and values, times the cells: what they are does not change what they take.
The last micro-batch, blocks with all the rows that were planned for, and drafted requests run.
"""

import ctypes
import json
import mmap
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_eft import Emulator, Request
from edge_eft.backend import Context
from edge_eft.backend.library import L, start_library
from edge_eft.files.recipe import from_files

N_UBATCH = 512


def status(key: str) -> int:
    """Bytes that /proc says of this process."""
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if key in each)
    return int(line.split()[1]) * 1024


def fill(context: Context, n: int) -> None:
    """Let the first sequence hold `n` tokens, all but one of them without a decode."""
    native = context._context
    context.advance({0: (np.zeros(1, np.int32), 1)})
    size = L.llama_state_seq_get_size(native, 0)
    one = (ctypes.c_uint8 * size)()
    assert L.llama_state_seq_get_data(native, one, size, 0) == size
    with mmap.mmap(-1, size * (n + 1)) as many:  # malloc would keep what is freed, and use it
        n_bytes = repeat(bytes(one), n, np.frombuffer(many, np.uint8))
        buffer = ctypes.c_uint8.from_buffer(many)
        L.llama_memory_seq_rm(context._memory, 0, -1, -1)
        assert L.llama_state_seq_set_data(native, ctypes.byref(buffer), n_bytes, 0) == n_bytes
        del buffer
    context._sequences[0].tokens[:n], context._sequences[0].n = 0, n


def copy_to_all(context: Context) -> None:
    """Let every sequence hold what the first does."""
    first, *others = context._sequences
    for sequence, held in enumerate(others, 1):
        L.llama_memory_seq_cp(context._memory, 0, sequence, -1, -1)
        held.tokens[: first.n], held.n = first.tokens[: first.n], first.n


def repeat(state: bytes, n: int, out: NDArray[np.uint8]) -> int:
    """Write the state of a sequence of one token as one of `n`, and return its length.

    llama-kv-cache.cpp, `state_write`.
    """
    end = 0

    def put(piece: bytes, times: int = 1) -> None:
        nonlocal end
        rows = out[end : end + len(piece) * times].reshape(times, -1)
        rows[:] = np.frombuffer(piece, np.uint8)
        end += rows.size

    at = 12  # magic, sequence, number of streams
    put(state[:at])
    for _ in range(*struct.unpack_from("I", state, 8)):
        (count,) = struct.unpack_from("I", state, at)
        at += 4
        if not count:
            put(struct.pack("I", 0))
            continue
        put(struct.pack("I", n))
        begin = end
        put(state[at : at + 12], n)  # position, number of sequences, sequence
        out[begin:end].view(np.int32)[::3] = np.arange(n)
        (n_layers,) = struct.unpack_from("I", state, at + 16)
        put(state[at + 12 : at + 20])
        at += 20
        for _ in range(2 * n_layers):  # keys, then values
            _, n_row = struct.unpack_from("=iQ", state, at)
            put(state[at : at + 12])
            put(state[at + 12 : at + 12 + n_row], n)
            at += 12 + n_row
    assert at == len(state)
    return end


def work(emulator: Emulator) -> None:
    """The last micro-batch of full contexts, rows of all slots at once, and drafted requests."""
    anything = np.random.default_rng(0)  # all of an embedding is read
    for runner in emulator.contexts:
        context = runner.context
        n_slots = len(context._sequences)
        rows = context.n_outputs // n_slots
        # A cut into two micro-batches: of the first no rows are wanted, which is another graph.
        fill(context, max(emulator.n_ctx - N_UBATCH - 2 * rows, 1))
        forget_peak()
        tokens = anything.integers(0, context.n_vocab, emulator.n_ctx).astype(np.int32)
        tokens[: len(context.tokens(0))] = 0
        context.advance({0: (tokens[:-rows], 1)})
        copy_to_all(context)
        context.advance(dict.fromkeys(range(n_slots), (tokens, rows)))
    prompt = "It is the year of the one in a"
    for seed in range(emulator.n_slots):
        emulator.submit(Request(prompt, max_tokens=40, temperature=0.7, seed=seed, explain=3))
    while emulator.busy:
        emulator.step()


def forget_peak() -> None:
    """The states that filled the cache do not count."""
    Path("/proc/self/clear_refs").write_text("5")


def main(base: str, tuned: str, reference: str, n_ctx: str, n_slots: str) -> None:
    recipe: Any = from_files(base, tuned, reference)
    start_library()
    before = status("VmRSS")
    with Emulator(recipe, n_ctx=int(n_ctx), n_slots=int(n_slots), n_threads=1) as emulator:
        loaded = status("VmHWM")
        work(emulator)
        memory = emulator.record.memory
        peak = max(loaded, status("VmHWM"))
    about = {"estimate": memory.total, "peak": peak - before, "before": before}
    sys.stdout.write(json.dumps(about) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
