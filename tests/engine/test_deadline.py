"""deadline: a block that takes too long ends its process, with its last words; others do not."""

import subprocess
import sys
from subprocess import PIPE

CODE = """
import os, time
from edge_eft.engine.deadline import Deadline
deadline = Deadline(0.4, "it took too long")
os.close(2)
{}
print("done")
"""
SHORT_BLOCKS = """
for _ in range(20):
    with deadline:
        time.sleep(0.05)
time.sleep(1)
"""
LONG_BLOCK = """
with deadline:
    time.sleep(30)
"""
FAILED_BLOCK = """
try:
    with deadline:
        raise ValueError
except ValueError:
    time.sleep(1)
"""


def test_only_a_block_that_takes_too_long_ends_the_process():
    expected = {
        SHORT_BLOCKS: (0, "done\n", ""),
        FAILED_BLOCK: (0, "done\n", ""),
        LONG_BLOCK: (1, "", "it took too long\n"),
    }
    children = {
        block: subprocess.Popen(
            [sys.executable, "-c", CODE.format(block)], stdout=PIPE, stderr=PIPE, text=True
        )
        for block in expected
    }
    for block, child in children.items():
        said = child.communicate(timeout=20)
        assert (child.returncode, *said) == expected[block], block
