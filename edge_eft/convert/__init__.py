"""The converter: a tuned small model and its reference, quantised together, into a recipe.

`job.py` is the order of the work; `cli/convert.py` is the command line. The native part runs in a
child process (`tasks.py`), so that a crash in it is an error message and not the program's end.
Nothing here knows how to emulate; what it writes, `edge-eft run` takes as it stands.
"""

from ..errors import ConversionError

__all__ = ["ConversionError"]
