"""The page that says what survives between protocols says what is so."""

from tools.configuration_docs import own_registry
from tools.dialect_table import DOCS, page


def test_the_page_of_dialects_is_not_stale() -> None:
    assert DOCS.read_text(encoding="utf-8") == page(own_registry().dialects), "run tools/dialect_table.py (make docs)"
