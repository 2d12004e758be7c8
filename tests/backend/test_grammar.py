"""grammar: what may come next, and that llama.cpp neither prints nor aborts."""

import gc
import itertools
import time

import numpy as np
import pytest

from edge_eft.backend import Grammar, GrammarTokens, grammar
from edge_eft.errors import GrammarError, RequestError


@pytest.fixture(scope="module")
def tokens(smollm2):
    return GrammarTokens(smollm2, smollm2.piece, smollm2.n_vocab)


def grammar_of(tokens, text, **options):
    return Grammar(tokens, text, tokens.model.eos_token, **options)


def accept(grammar, text):
    for token in grammar._tokens.model.tokenize(text):
        assert grammar.allows(token), text
        grammar.accept(token)


def allowed(grammar, n_vocab):
    row = np.zeros(n_vocab, np.float32)
    grammar.mask(row)
    return set(np.flatnonzero(np.isfinite(row)).tolist())


@pytest.mark.parametrize("text", ["", "a", "ab", "abé", "abé🙂x", "abé🙂xy"])
def test_the_mask_allows_what_a_look_allows(tokens, text):
    grammar = grammar_of(tokens, 'root ::= "a" [b-e]* . "🙂x" .*')
    accept(grammar, text)
    by_mask = allowed(grammar, tokens.n_vocab)
    step = 7
    for token in range(0, tokens.n_vocab, step):
        assert (token in by_mask) == grammar.allows(token)
    assert (tokens.model.eos_token in by_mask) == grammar.complete


def test_the_end_is_allowed_where_the_text_is_complete(tokens):
    end = tokens.model.eos_token
    grammar = grammar_of(tokens, 'root ::= "a" "b"?')
    assert not grammar.allows(end)
    accept(grammar, "a")
    assert grammar.allows(end)
    row = np.zeros(tokens.n_vocab, np.float32)
    assert grammar.mask(row)
    accept(grammar, "b")
    row = np.zeros(tokens.n_vocab, np.float32)
    assert not grammar.mask(row)
    assert np.flatnonzero(np.isfinite(row)).tolist() == [end]
    grammar.accept(end)  # nothing happens
    assert grammar.complete


def test_control_tokens_print_nothing_and_are_not_allowed(tokens):
    """llama.cpp reads <|im_start|> by its text, and a reply does not show it."""
    silent = tokens.model.tokenize("<|im_start|>", parse_special=True)
    assert len(silent) == 1
    grammar = grammar_of(tokens, "root ::= .*")
    assert not grammar.allows(silent[0])
    assert silent[0] not in allowed(grammar, tokens.n_vocab)
    stopping = grammar_of(tokens, 'root ::= "a" .*', stops=silent)
    assert not stopping.allows(silent[0])
    accept(stopping, "a")
    assert stopping.allows(silent[0])


def test_bytes_that_are_not_utf8_are_not_allowed(tokens):
    """An overlong form is a character to llama.cpp, and several marks in a reply."""
    by_byte = {tokens.model.piece(t): t for t in tokens.usable_set}
    grammar = grammar_of(tokens, "root ::= .*")
    lead = by_byte[b"\xf0"]
    assert grammar.allows(lead)
    grammar.accept(lead)
    following = [by_byte[bytes([b])] for b in range(0x80, 0xC0)]
    assert [grammar.allows(t) for t in following] == [b >= 0x90 for b in range(0x80, 0xC0)]
    by_mask = allowed(grammar, tokens.n_vocab)
    assert [t in by_mask for t in following] == [b >= 0x90 for b in range(0x80, 0xC0)]


def test_a_copy_goes_on_alone(tokens):
    grammar = grammar_of(tokens, 'root ::= "ab" | "ac"')
    accept(grammar, "a")
    copy = grammar.copy()
    accept(copy, "b")
    accept(grammar, "c")
    assert copy.complete
    assert grammar.complete


def test_a_grammar_goes_back_to_tokens_that_it_allowed(tokens):
    grammar = grammar_of(tokens, 'root ::= "a" ("bb" | "c")')
    accept(grammar, "a")
    before = list(grammar.accepted)
    assert grammar.after(before) is grammar
    accept(grammar, "c")
    back = grammar.after(before)
    assert back.accepted == before
    accept(back, "bb")
    assert back.complete


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("root ::= (", "expecting '\\)'"),
        ("root ::= a", "Undefined rule"),
        ('root ::= root "a"', "left recursion"),
    ],
)
def test_what_llama_cpp_cannot_read_is_said_and_not_printed(tokens, text, reason, capfd):
    with pytest.raises(RequestError, match=reason):
        grammar_of(tokens, text)
    assert capfd.readouterr() == ("", "")


def test_memory_is_freed(tokens):
    grammar = grammar_of(tokens, 'root ::= "a"')
    copy = grammar.copy()
    finalizers = [grammar.free, copy.free]
    del grammar, copy
    gc.collect()
    assert [one.alive for one in finalizers] == [False, False]


def test_a_look_costs_microseconds(tokens):
    grammar = grammar_of(tokens, r'root ::= "{" ("\"" [^"\\]* "\"" ":" [0-9]+)* "}"')
    accept(grammar, '{"abc')
    (token,) = tokens.model.tokenize("x")
    n, best = 200, 1.0
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(n):
            grammar.allows(token)
        best = min(best, (time.perf_counter() - begun) / n)
    assert best < 200e-6


def test_a_mask_that_takes_minutes_is_left_after_a_second(tokens):
    """A look at one token is quick, and every stack of llama.cpp's adds to it for all of them."""
    rules = [f"a{i} ::= " + " | ".join(f"[a-c{c}]* {c!r}?" for c in "defghijk") for i in range(8)]
    text = f"root ::= {' '.join(f'a{i}' for i in range(8))}\n" + "\n".join(rules)
    grammar = grammar_of(tokens, text.replace("'", '"'))
    assert not grammar.allows(tokens.model.tokenize("x")[0])
    begun = time.thread_time()
    with pytest.raises(GrammarError, match="ambiguous"):
        grammar.mask(np.zeros(tokens.n_vocab, np.float32))
    assert time.thread_time() - begun < 3


def test_slow_masks_are_borne_for_some_seconds_in_all(tokens, monkeypatch):
    """Those of copies count with it: they are of one request."""
    clock = itertools.count(step=0.0099)
    made = grammar_of(tokens, "root ::= .*")
    monkeypatch.setattr(grammar, "thread_time", lambda: next(clock))
    monkeypatch.setattr(grammar, "_LONGEST", 0.1)
    row = np.zeros(tokens.n_vocab, np.float32)
    for _ in range(10):
        made.mask(row.copy())
        made.copy().mask(row.copy())

    def more():
        for _ in range(20):
            made.mask(row.copy())

    with pytest.raises(GrammarError, match="ambiguous"):
        more()
    another = grammar_of(tokens, "root ::= .*")
    another.mask(row)
