"""`llmproxy schema`: the JSON Schema of the configuration file, with the types of all installed plugins."""

from __future__ import annotations

import json

from llmproxy_core.config_schema import json_schema
from llmproxy_server.cli_load import load_registry
from llmproxy_server.cli_terminal import say


def schema() -> None:
    """Print it. The same plugins give the same text."""
    say(json.dumps(json_schema(load_registry()), indent=2, ensure_ascii=False))
