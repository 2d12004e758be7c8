"""Run a large pre-trained model as if it had been fine-tuned, from three GGUF files."""

from .combiner import Weights
from .emulator import Emulator
from .errors import EdgeEftError
from .request import Generation, Request, Step, Timings

__all__ = ["EdgeEftError", "Emulator", "Generation", "Request", "Step", "Timings", "Weights"]
