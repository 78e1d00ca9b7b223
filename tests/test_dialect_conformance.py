"""Every registered dialect conforms, with all its recordings."""

from __future__ import annotations

import pytest

from llmproxy_core.testing import DIALECT_CHECKS, DialectCheck
from tests.dialect_samples import PROTOCOLS, declared, registered


def test_every_registered_dialect_is_declared() -> None:
    assert {protocol.dialect for protocol in PROTOCOLS.values()} == set(registered())


@pytest.mark.parametrize("check", DIALECT_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_dialect_conforms(name: str, check: DialectCheck) -> None:
    check(declared(name))
