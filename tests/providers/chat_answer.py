"""The answers of chat completions, plain and streamed, as OpenAI and Mistral write them."""

from tests.providers.refusal import JSON
from tests.providers.scenario import Spent, Turn


def usage(spent: Spent) -> JSON:
    """*spent* as chat completions tell it."""
    return {
        "prompt_tokens": spent.input,
        "completion_tokens": spent.output,
        "total_tokens": spent.input + spent.output,
        "prompt_tokens_details": {"cached_tokens": spent.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": spent.reasoning, "audio_tokens": 0},
    }


def finish(turn: Turn) -> str:
    """The word for how *turn* ended."""
    return "tool_calls" if turn.calls else "stop"
