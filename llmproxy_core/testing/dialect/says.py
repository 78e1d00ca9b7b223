"""What a protocol can say, word by word."""

from __future__ import annotations

from enum import StrEnum


class Says(StrEnum):
    """
    Something that a protocol may have words for.

    Text, the roles of user and assistant, the finish `stop`, and the tokens of input and output are not in it: every
    protocol of chat says them.
    """

    # conversations
    SYSTEM = "system"
    """A prompt of the system before the first turn."""
    SYSTEM_ANYWHERE = "system_anywhere"
    """Prompts of the system between the turns too."""
    DEVELOPER = "developer"
    """The role `developer`, told from `system`."""
    NAMES = "names"
    """The name of who speaks."""
    PREFIX = "prefix"
    """A last turn of the assistant that is to be continued."""
    IMAGE_URLS = "image_urls"
    IMAGE_DATA = "image_data"
    DOCUMENTS = "documents"
    """Documents as data, with their media type."""
    AUDIO = "audio"
    CACHE_MARKS = "cache_marks"
    """Breakpoints of the prompt cache behind texts."""

    # tools
    TOOLS = "tools"
    """Tools of the caller's, a call with its result, `tool_choice` auto, none and required."""
    NAMED_TOOL = "named_tool"
    """One tool that must be called."""
    ALLOWED_TOOLS = "allowed_tools"
    """Some of the tools, of which the model may choose."""
    PARALLEL_CALLS = "parallel_calls"
    """Several calls in one turn."""
    SERIAL_TOOLS = "parallel_tool_calls"
    """The wish for one call at a time."""
    STRICT_TOOLS = "strict_tools"
    TOOL_ERRORS = "tool_errors"
    """A result that is marked as an error."""
    TOOL_IMAGES = "tool_images"
    """Images (as data) in results."""

    # thinking
    REASONING = "reasoning"
    """Thinking in answers."""
    PAST_REASONING = "past_reasoning"
    """Thinking in the turns that a request repeats."""
    SIGNATURES = "signatures"
    """Thinking that its provider has signed."""
    REDACTED = "redacted"
    """Thinking that only its provider can read."""
    ENCRYPTED = "encrypted"
    """Thinking with an id and an encrypted form of it."""
    CALL_SIGNATURES = "call_signatures"
    """Signatures of tool calls."""
    CARRIED = "carried_signatures"
    """Answers of other providers hand their signatures to the client, sealed (`llmproxy_core.seal`)."""

    # parameters
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    TEMPERATURE = "temperature"
    TOP_P = "top_p"
    TOP_K = "top_k"
    FREQUENCY_PENALTY = "frequency_penalty"
    PRESENCE_PENALTY = "presence_penalty"
    SEED = "seed"
    STOP = "stop"
    """Stop sequences."""
    N = "n"
    """Several choices: asked for, and in answers."""
    LOGPROBS = "logprobs"
    LOGIT_BIAS = "logit_bias"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    STRICT_SCHEMA = "strict_schema"
    EFFORT = "effort"
    """How much to think, as a word."""
    THINKING_BUDGET = "thinking_budget"
    """How much to think, in tokens."""
    VERBOSITY = "verbosity"
    USER = "user"
    METADATA = "metadata"
    SERVICE_TIER = "service_tier"
    STORE = "store"
    CACHE_KEY = "cache_key"

    # answers
    REFUSALS = "refusals"
    """Text that is marked as a refusal."""
    CITATIONS = "citations"
    """Sources, with URL and title."""
    CACHED_USAGE = "cached_usage"
    CACHE_WRITE_USAGE = "cache_write_usage"
    REASONING_USAGE = "reasoning_usage"
    FINISH_LENGTH = "finish_length"
    FINISH_FILTER = "finish_filter"
    FINISH_REFUSAL = "finish_refusal"
    """A refusal, told from a filter."""
    FINISH_ERROR = "finish_error"


OF_ANSWERS = frozenset(
    {
        Says.CARRIED,
        Says.REFUSALS,
        Says.CITATIONS,
        Says.CACHED_USAGE,
        Says.CACHE_WRITE_USAGE,
        Says.REASONING_USAGE,
        Says.FINISH_LENGTH,
        Says.FINISH_FILTER,
        Says.FINISH_REFUSAL,
        Says.FINISH_ERROR,
    }
)
"""Words that no request needs."""

NEEDS = {
    Says.NAMED_TOOL: Says.TOOLS,
    Says.ALLOWED_TOOLS: Says.TOOLS,
    Says.PARALLEL_CALLS: Says.TOOLS,
    Says.SERIAL_TOOLS: Says.TOOLS,
    Says.STRICT_TOOLS: Says.TOOLS,
    Says.TOOL_ERRORS: Says.TOOLS,
    Says.TOOL_IMAGES: Says.TOOLS,
    Says.CALL_SIGNATURES: Says.TOOLS,
    Says.PAST_REASONING: Says.REASONING,
    Says.SIGNATURES: Says.REASONING,
    Says.REDACTED: Says.REASONING,
    Says.ENCRYPTED: Says.REASONING,
    Says.STRICT_SCHEMA: Says.JSON_SCHEMA,
}
"""What a word is said together with."""

INSTEAD = (
    frozenset({Says.NAMED_TOOL, Says.ALLOWED_TOOLS}),
    frozenset({Says.JSON_OBJECT, Says.JSON_SCHEMA}),
    frozenset({Says.EFFORT, Says.THINKING_BUDGET}),
    frozenset({Says.PREFIX, Says.TOOLS}),
)
"""Of each of these a request says one at most: they share a field, or contradict each other."""

SILENT = frozenset(
    {
        Says.CACHE_MARKS,
        Says.CALL_SIGNATURES,
        Says.DEVELOPER,
        Says.ENCRYPTED,
        Says.NAMES,
        Says.PAST_REASONING,
        Says.REASONING,
        Says.REDACTED,
        Says.SIGNATURES,
        Says.TOOL_ERRORS,
    }
)
"""
What may be lost on the way into another protocol without a word.

Marks of a cache; thinking, which is its own provider's; the role `developer`, which is `system` elsewhere; and what the
text says too: who speaks, that a result is an error.
"""


def with_needs(words: frozenset[Says]) -> frozenset[Says]:
    """*words*, and those that they are said together with."""
    return words | {NEEDS[word] for word in words if word in NEEDS}
