"""`python -m helpers.scripted_host FOLDER`: the engine's process with scripted replies.

Everything is the real one, models, queue, drafts and explanations included; the choice of the next
token alone is not: it is the script's. `scripted_server` writes the folder and starts this. Without
texts the choice is the real one, too, and replies are held all the same.
"""

import json
import re
import sys
import time
from pathlib import Path

from edge_eft.engine import host, verifier
from edge_eft.engine.emulator import Emulator


class ScriptedEmulator(Emulator):
    """Says the script's texts, token by token.

    The number in the last message says which one, and the first is said where there is none. Once
    a reply has as many tokens as the folder's `gate` says, nothing goes on until that is raised.
    While there is a file `loading`, its own files are not read to their end.
    """

    folder: Path

    def __init__(self, *given, on_load, **options):
        super().__init__(*given, on_load=self._held(on_load), **options)
        model = self.contexts[0].model
        texts = json.loads((self.folder / "texts.json").read_text("utf-8"))
        self._scripts = [model.tokenize(t, add_special=False, parse_special=False) for t in texts]

    def _held(self, on_load):
        def told(file, done, total):
            on_load(file, done, total)
            while (self.folder / "loading").exists() and done < total:
                time.sleep(0.005)

        return told

    def step(self):
        gate = (self.folder / "gate").read_text()
        if gate and any(len(state.tokens) >= int(gate) for state in self._scheduler):
            time.sleep(0.005)
            return []
        if self._scripts:
            verifier.choose = self._choose
        return super().step()

    def _choose(self, logits, request, index, counts, grammar):
        said = request.prompt if isinstance(request.prompt, str) else request.prompt[-1]["content"]
        number = re.search(r"\d+", said)
        script = self._scripts[int(number[0]) % len(self._scripts) if number else 0]
        return script[index] if index < len(script) else self.vocabulary.end_token


if __name__ == "__main__":
    ScriptedEmulator.folder = Path(sys.argv[1])
    host.Emulator = ScriptedEmulator
    host.main()
