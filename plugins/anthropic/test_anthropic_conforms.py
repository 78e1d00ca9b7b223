"""What every dialect must do, with what this one's protocol can say."""

from typing import ClassVar

from llmproxy_anthropic import AnthropicDialect
from llmproxy_anthropic.apis import MESSAGES

from llmproxy_core.testing import DialectConformance, Recorded, RecordedError, Says
from tests.recordings import Recording, recordings


def sample(case: Recording) -> Recorded:
    """*case* with its answer, unless that is an error."""
    said = case.response_body if case.response_status == 200 and "midway" not in case.name else None
    is_stream = case.is_event_stream
    return Recorded(
        api=MESSAGES.name,
        request=case.request_body,
        reply=None if is_stream else said,
        stream=said if is_stream else None,
        name=str(case),
    )


CASES = recordings(provider="anthropic", protocol="messages")


class TestAnthropicConforms(DialectConformance):
    """A model that takes both a temperature and an effort: the rules of other generations have tests of their own."""

    dialect = AnthropicDialect()
    model = "claude-sonnet-4-6"
    says: ClassVar = {
        Says.SYSTEM,
        Says.IMAGE_URLS,
        Says.IMAGE_DATA,
        Says.DOCUMENTS,
        Says.CACHE_MARKS,
        Says.TOOLS,
        Says.NAMED_TOOL,
        Says.PARALLEL_CALLS,
        Says.SERIAL_TOOLS,
        Says.STRICT_TOOLS,
        Says.TOOL_ERRORS,
        Says.TOOL_IMAGES,
        Says.REASONING,
        Says.SIGNATURES,
        Says.REDACTED,
        Says.CARRIED,
        Says.MAX_OUTPUT_TOKENS,
        Says.TEMPERATURE,
        Says.TOP_K,
        Says.STOP,
        Says.JSON_SCHEMA,
        Says.EFFORT,
        Says.USER,
        Says.SERVICE_TIER,
        Says.CITATIONS,
        Says.CACHED_USAGE,
        Says.CACHE_WRITE_USAGE,
        Says.REASONING_USAGE,
        Says.FINISH_LENGTH,
        Says.FINISH_REFUSAL,
    }
    never_together: ClassVar = [{Says.EFFORT, Says.TEMPERATURE}, {Says.EFFORT, Says.TOP_K}]
    samples: ClassVar = [sample(case) for case in CASES]
    errors: ClassVar = [
        RecordedError(case.response_status, case.response_body, case.response_headers)
        for case in CASES
        if case.response_status != 200
    ]
