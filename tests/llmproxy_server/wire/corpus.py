"""The hostile corpus: every row of it, by name."""

from __future__ import annotations

from tests.llmproxy_server.wire import (
    corpus_chunk,
    corpus_connection,
    corpus_fields,
    corpus_host,
    corpus_length,
    corpus_line,
    corpus_path,
)
from tests.llmproxy_server.wire.rows import MARK, Row

KINDS = (corpus_line, corpus_path, corpus_host, corpus_fields, corpus_length, corpus_chunk, corpus_connection)


def _by_name() -> dict[str, Row]:
    rows = [row for kind in KINDS for row in kind.ROWS]
    named = {row.name: row for row in rows}
    assert len(named) == len(rows), "two rows of one name"
    assert all(MARK in row.data for row in rows if row.refused), [
        row.name for row in rows if row.refused and MARK not in row.data
    ]
    return named


CORPUS = _by_name()
