"""Runs one of llama.cpp's conversion scripts, and ends when its parent does.

Started as a file, in a clean environment: it imports nothing of edge_eft. A script whose parent
was killed would otherwise go on writing into a directory that the next run has taken over.

    python script_main.py SCRIPT [ARGUMENT]...
"""

import os
import runpy
import sys
import threading


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_die_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
