"""Run a large pre-trained model as if it had been fine-tuned, from three GGUF files.

Public names are loaded when they are first used (PEP 562): importing the package loads neither
NumPy nor native code.
"""

import importlib

TYPE_CHECKING = False  # as type checkers know it; importing typing would take most of the time
if TYPE_CHECKING:
    from typing import Any

    from .engine.emulator import Emulator
    from .engine.reply import Generation, Step, Timings
    from .engine.request import Request
    from .errors import EdgeEftError
    from .logits.weights import Weights

_MODULES = {
    "EdgeEftError": "errors",
    "Emulator": "engine.emulator",
    "Generation": "engine.reply",
    "Request": "engine.request",
    "Step": "engine.reply",
    "Timings": "engine.reply",
    "Weights": "logits.weights",
}

__all__ = ["EdgeEftError", "Emulator", "Generation", "Request", "Step", "Timings", "Weights"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> "Any":
    if name == "errors":
        return importlib.import_module(".errors", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
