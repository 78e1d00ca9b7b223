"""
The test kit as a fixture of pytest.

    pytest_plugins = ["llmproxy_core.testing.fixtures"]

    def test_shout_conforms(conforms: Conforms) -> None:
        conforms(Declared(processor_type=SHOUT, changes_answer={"text"}))
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmproxy_core.testing.conformance import check_processor
from llmproxy_core.testing.declared import Declared

Conforms = Callable[[Declared], None]


@pytest.fixture
def conforms() -> Conforms:
    """Runs a processor over operations, modes, cuts, cancellations and errors; NotConforming says what is wrong."""
    return check_processor
