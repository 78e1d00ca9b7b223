"""The official clients of npm: Node.js and the packages as `make clients` installs them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.clients.cast import PROVIDERS, Role
from tests.clients.stage import Stage
from tests.providers.scenario import MISSING_MODEL, PNG, RESULTS, SCHEMA, SYSTEM, TOOLS
from tests.providers.server import CALLERS_KEY

ROOT = Path(__file__).parents[2]
GENERATION = os.environ.get("CLIENTS", "current")
"""Which majors: `current` or `previous`, as the folders of node/ are called."""
INSTALLED = ROOT / ".venv-node"
DIRECTLY = "directly"
RUN_S = 120.0


@attrs.frozen
class Played:
    """What one client saw."""

    versions: str
    seen: Mapping[tuple[str, str], dict[str, Any]]  # by provider, or DIRECTLY, and scenario
    unhandled: Sequence[str]
    returned: frozenset[str]  # the providers to which their thoughts came back


def need_node() -> Path:
    """
    The program `node`; without it or its packages the test is skipped, and says how to install them.

    Where `CI` is set the test fails instead: there everything is installed, and nothing is left out unnoticed.
    """
    program = INSTALLED / "bin" / "node"
    packages = INSTALLED / GENERATION / "node_modules"
    for path, what in ((program, "Node.js is"), (packages, f"the {GENERATION} packages of npm are")):
        if not path.exists():
            message = f"{what} not installed: make clients"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
    return program


async def play_all(client: str, role: Role, stage: Stage) -> Played:
    """Every scenario of *client*, directly with its own provider's fake and with each provider behind the proxy."""
    own = stage.fakes[role.own]
    targets = [_target(DIRECTLY, role.own, own.url, own.key, role)]
    targets += [_target(name, name, stage.url(name, role), CALLERS_KEY, role) for name in PROVIDERS]
    before = {name: len(fake.requests) for name, fake in stage.fakes.items()}
    output = await _run(client, json.dumps({"facts": _facts(), "targets": targets}).encode())
    versions, seen, unhandled = "", {}, []
    for line in map(json.loads, output.splitlines()):
        if "versions" in line:
            versions = f"{line['versions']} on Node.js {line['node']}"
        elif "unhandled" in line:
            unhandled.append(f"{line.get('provider')} {line.get('scenario')}: {line['unhandled']}")
        else:
            seen[line["provider"], line["scenario"]] = line["seen"]
    returned = frozenset(
        name
        for name, fake in stage.fakes.items()
        if (mark := PROVIDERS[name].mark) and any(mark in it.body.decode() for it in fake.requests[before[name] :])
    )
    return Played(versions, seen, unhandled, returned)


async def _run(client: str, job: bytes) -> bytes:
    program = need_node()
    # The scripts lie behind a link below the packages: see the Makefile.
    script = INSTALLED / GENERATION / "clients" / "run.mjs"
    process = await asyncio.create_subprocess_exec(
        program,
        "--preserve-symlinks",
        "--preserve-symlinks-main",
        script,
        client,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(RUN_S):
            output, errors = await process.communicate(job)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return output


def _target(label: str, provider: str, url: str, key: str, role: Role) -> dict[str, object]:
    models = attrs.asdict(PROVIDERS[provider].models)
    return {"provider": label, "url": url, "key": key, "models": models, "scenarios": role.scenarios}


def _facts() -> dict[str, object]:
    return {
        "generation": GENERATION,
        "system": SYSTEM,
        "png": base64.b64encode(PNG).decode(),
        "tools": TOOLS,
        "results": RESULTS,
        "schema": SCHEMA,
        "missing_model": MISSING_MODEL,
    }
