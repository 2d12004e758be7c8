"""library: what llama.cpp says goes to the log, and costs nothing where nobody reads it."""

import logging

from edge_eft.backend import library


def test_talk_is_dropped_where_nobody_reads_it_and_errors_are_kept(monkeypatch):
    said = []
    monkeypatch.setattr(library.log, "log", lambda level, *what: said.append((level, what[-1])))
    library.log.setLevel(logging.INFO)
    library.last_error()
    try:
        library._to_logging(2, b"loading tensor 1\n", None)
        library._to_logging(2, b"loading ", None)
        library._to_logging(5, b"tensor 2\n", None)
        library._to_logging(4, b"no such ", None)
        library._to_logging(5, b"tensor\n", None)
        assert (logging.INFO, "no such tensor") in said
        assert library.last_error() == "no such tensor"
        assert not [what for _, what in said if what.startswith("loading tensor")]
        library.log.setLevel(logging.DEBUG)
        library._to_logging(2, b"loading tensor 3\n", None)
        assert (logging.DEBUG, "loading tensor 3") in said
    finally:
        library.log.setLevel(logging.NOTSET)
