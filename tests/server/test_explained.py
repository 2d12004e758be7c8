"""What each model thought of a token, as JSON has it."""

import math

from edge_eft.engine.reply import Candidate, RoleView, Step, Timings
from edge_eft.server.explained import explained


def step(piece, candidates=()):
    views = {"base": RoleView(-math.inf, ((7, "a", -0.5),))}
    more = {"piece": piece, "candidates": candidates, "explain": views}
    return Step(0, 0, 7, "", -1.0, Timings(), **more)


def test_a_part_of_a_character_has_its_bytes():
    whole, part = explained([step(b" a"), step(b"\xf0\x9f")], 1)
    assert (whole["token"], "bytes" in whole) == (" a", False)
    assert (part["token"], part["bytes"]) == ("\ufffd", [0xF0, 0x9F])
    others = (Candidate(9, b"\x8e", {"emulated": -2.0, "base": -math.inf}),)
    (entry,) = explained([step(b" a", others)], 1)
    assert entry["candidates"] == [
        {
            "id": 9,
            "token": "\ufffd",
            "bytes": [0x8E],
            "logprobs": {"emulated": -2.0, "base": -9999.0},
        }
    ]
    assert entry["base"]["logprob"] == -9999.0
