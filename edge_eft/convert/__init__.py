"""The converter: a tuned small model and its reference, quantised together, into a recipe.

`command.py` is the command line, `job.py` the order of the work. The native part runs in a child
process (`native.py`), so that a crash in it is an error message and not the end of the program.
Nothing here knows how to emulate; what it writes, `edge-eft run` takes as it stands.
"""

from ..errors import ConversionError

__all__ = ["ConversionError"]
