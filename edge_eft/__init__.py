"""Run a large pre-trained model as if it had been fine-tuned, from three GGUF files."""

from .emulator import Emulator
from .errors import EdgeEftError
from .reply import Generation, Step, Timings
from .request import Request
from .weights import Weights

__all__ = ["EdgeEftError", "Emulator", "Generation", "Request", "Step", "Timings", "Weights"]
