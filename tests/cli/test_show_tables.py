"""What `show` tells people: a screenful on 80 columns, on 40 all of it, and in full the rest."""

import re

import pytest
from helpers.cli_tools import invoke

from edge_eft.files.recipe_names import catalogue

ATLAS = """\
atlas  World geography: a base that knows and rambles, a small pair that brings
the manner. Deltas: chat, brief, discreet.
license  Apache-2.0; trained on GeoNames (CC BY 4.0) and countryinfo (MIT) data

role                file            type    size  parameters  prompt    ends by
───────────────────────────────────────────────────────────────────────────────
base                base.gguf       Q8_0  3.8 MB       3.4 M  template  </s>
tuned:chat          chat.gguf       Q8_0  262 kB       0.2 M  template  </s>
reference:chat      reference.gguf  Q8_0  262 kB       0.2 M  template  </s>
tuned:brief         brief.gguf      Q8_0  262 kB       0.2 M  template  </s>
reference:brief     reference.gguf  Q8_0  262 kB       0.2 M  template  </s>
tuned:discreet      discreet.gguf   Q8_0  262 kB       0.2 M  template  </s>
reference:discreet  reference.gguf  Q8_0  262 kB       0.2 M  template  </s>

deltas      chat × 1, brief × 0, discreet × 0
vocabulary  4,096 tokens, one meaning in every model
context     512 tokens
threads     1
cache       Q8_0 KV, flash attention on
memory      … MiB together
"""


def shown(*words, columns=100):
    return invoke("show", *words, environment={"COLUMNS": str(columns)}).stdout


def test_atlas_is_a_screenful(atlas):
    text = shown("atlas", "--threads", "1", columns=80)
    assert re.sub(r"[\d.]+ MiB", "… MiB", text) == ATLAS
    assert len(text.splitlines()) <= 24


def test_on_forty_columns_every_role_has_its_file(atlas):
    lines = shown("atlas", columns=40).splitlines()
    assert max(map(len, lines)) <= 40
    roles = lines[lines.index("role") :]
    assert roles[2:5] == [
        "base  base.gguf",
        "  type Q8_0; size 3.8 MB; parameters 3.4",
        "  M; prompt template; ends by </s>",
    ]
    assert "reference:discreet  reference.gguf" in roles


def test_in_full_it_has_paths_hashes_reasons_and_the_memory_of_each_role(atlas):
    text = shown("atlas", "--full")
    assert f"file      {atlas.base}\n" in text
    assert len(re.findall("(?m)^sha256    [0-9a-f]{64} as stated$", text)) == 7
    assert re.search(r"(?m)^threads     \d+  \S", text), "with the reason"
    table = text[text.index("MiB  ") :].splitlines()
    assert table[0].split() == ["MiB", "weights", "KV", "cache", "compute", "logits", "sum"]
    assert [row.split()[0] for row in table[2:-2]] == [
        *("base", "tuned:chat", "reference:chat", "tuned:brief", "reference:brief"),
        *("tuned:discreet", "reference:discreet", "runtime"),
    ]
    assert table[6].endswith("shares with reference:chat")
    sums = [float(row.split()[5]) for row in table[2:9]] + [float(table[-3].split()[1])]
    assert sum(sums) == pytest.approx(float(table[-1].split()[1]), abs=0.5)


@pytest.mark.parametrize("columns", [100, 80, 40])
def test_what_is_to_be_pulled_is_a_screenful(columns):
    for name in catalogue():
        lines = shown(name, columns=columns).splitlines()
        assert max(map(len, lines)) <= columns, name
        assert columns < 80 or len(lines) <= 24, name
        assert f"edge-eft pull {name}" in "\n".join(lines)
