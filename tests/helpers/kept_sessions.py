"""Files of kept conversations, event by event."""

import json
import os

BEGIN = {"event": "begin", "version": 1, "id": "20261128-kqzm", "at": "2026-11-28T12:00:00+00:00"}
BEGIN |= {"recipe": "atlas", "models": {"recipe": "atlas"}, "settings": {}, "system": None}


def turn(role, content):
    return {"event": "turn", "role": role, "content": content}


def write(place, *events, name="20261128-kqzm", when=None):
    """A file of a conversation; `when` it was used, in seconds."""
    path = place / f"{name}.jsonl"
    lines = [BEGIN | {"id": name}, *events]
    path.write_text("".join(json.dumps(event) + "\n" for event in lines))
    if when is not None:
        os.utime(path, (when, when))
    return path
