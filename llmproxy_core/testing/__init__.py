"""
For the tests of plugin authors: an LLM that plays a script, a clock that a test moves, a pipeline without a server.

    async with Pipeline(dialect, ScriptedLLM([Answer([b"data: ..."])]), processors=[MyProcessor()]) as pipeline:
        result = await pipeline.ask(api, body)
"""

from llmproxy_core.testing.client import Result
from llmproxy_core.testing.clock import FakeClock
from llmproxy_core.testing.pipeline import Pipeline
from llmproxy_core.testing.script import Answer, ScriptedBody, ScriptedLLM

__all__ = ["Answer", "FakeClock", "Pipeline", "Result", "ScriptedBody", "ScriptedLLM"]
