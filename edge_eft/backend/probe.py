"""A child process that tries llama.cpp out, step by step, and tells how far it came.

`edge-eft doctor` starts it: a build that does not suit the processor or its driver dies or hangs
here. It writes one JSON object a line: the step, and what came of it. What is not there was not
reached. Loading this package is the first step; why that fails is the last line on stderr.

    python -m edge_eft.backend.probe SECONDS [MODEL]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from .context import Context
from .devices import backend_libraries, devices, system_info
from .library import default_threads, gpu_available
from .model import Model

LAST = "end"  # the step without which the process ended too soon
PROMPT_TOKENS = 40  # a batch has kernels of its own


def steps(model: str | None) -> Iterator[tuple[str, Any]]:
    """Yield (step, what came of it); whatever is asked of native code may be the last."""
    yield "build", {"system_info": system_info(), "libraries": backend_libraries()}
    yield "threads", default_threads()
    yield "devices", [device._asdict() for device in devices()]
    yield "gpu", gpu_available()
    if model is not None:
        yield "CPU", decode(model, n_gpu_layers=0)
        if gpu_available():
            yield "GPU", decode(model, n_gpu_layers=None)
    yield LAST, None


def decode(model: str, *, n_gpu_layers: int | None) -> bool:
    """Decode a prompt and a token. Returns whether all logits are numbers."""
    loaded = Model(model, n_gpu_layers=n_gpu_layers)
    context = Context(loaded, n_ctx=256, n_threads=default_threads()[0])
    tokens = np.arange(PROMPT_TOKENS + 1, dtype=np.int32) % loaded.n_vocab
    finite = True
    for n in (PROMPT_TOKENS, PROMPT_TOKENS + 1):
        finite &= bool(np.isfinite(context.advance({0: (tokens[:n], 1)})[0]).all())
    context.close()
    loaded.close()
    return finite


def main(seconds: str, model: str | None = None) -> None:
    """Write the steps to stdout, and end after `seconds`, whatever native code is at."""
    if hasattr(signal, "alarm"):  # if nobody is left who would end it
        signal.alarm(int(seconds))
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # native code that prints must not break the protocol
    for step, result in steps(model):
        told.write(json.dumps({"step": step, "result": result}) + "\n")
        told.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
