"""What Parley's dialect promises."""

import json
from collections.abc import Sequence

from llmproxy_parley.dialect import ParleyDialect

from llmproxy_core import Api
from llmproxy_core.testing import DialectConformance, Recorded, RecordedError
from llmproxy_core.wire import SSEDecoder

REQUEST = b"""{"model": "parley-1", "heat": 0.50, "limit": 200, "mood": "calm", "turns": [
  {"who": "human", "says": "Why is the sky blue?"},
  {"who": "model", "thoughts": [{"text": "Light \\u2026", "stamp": "c3RhbXA="}], "says": "It scatters.", "at": 17},
  {"who": "human", "says": "Who found out?"}
]}"""
REPLY = b"""{"id": "t-1", "model": "parley-1-2026", "says": "Lord Rayleigh.", "ended": "done", "mood": "calm",
  "tokens": {"in": 31, "out": 4}}"""
STREAM = b"""event: open
data: {"id": "t-2", "model": "parley-1-2026", "mood": "calm"}

event: thought
data: {"text": "Rayleigh, 1871", "stamp": "c3RhbXA="}

: still here

event: word
data: {"says": "Lord "}

event: word
data: {"says": "Rayleigh.", "certain": 0.90}

event: close
data: {"ended": "done", "tokens": {"in": 31, "out": 9}}

"""
ORDER = {"": {"open"}, "open": {"thought", "word", "close"}, "close": set()}
ORDER |= {name: {"thought", "word", "close"} for name in ("thought", "word")}


class TestParley(DialectConformance):
    """What every dialect must do, for what this protocol can say."""

    dialect = ParleyDialect()
    says = (
        *("system", "temperature", "max_output_tokens", "finish_length", "finish_filter"),
        *("reasoning", "past_reasoning", "signatures", "carried_signatures"),
    )
    samples = (Recorded(api="parley.talk", request=REQUEST, reply=REPLY, stream=STREAM),)
    errors = (RecordedError(429, b'{"error": {"message": "Slow down", "type": "too_fast"}, "mood": "stern"}'),)

    def grammar(self, api: Api, stream: bytes, *, failed: bool) -> Sequence[str]:
        """What is wrong with a stream, told without the code that writes it."""
        wrong, last = [], ""
        for event in SSEDecoder().feed(stream):
            if event.event != "oops" and event.event not in ORDER[last]:
                wrong.append(f"{event.event} after {last or 'nothing'}")
            last = event.event if event.event in ORDER else last
        ends = {"oops"} if failed else {"close"}
        names = [event.event for event in SSEDecoder().feed(stream)]
        return wrong if names and names[-1] in ends else [*wrong, f"it ends with {names[-1:]}"]

    def asks_again(self, reply: bytes) -> bytes:
        """What a client sends next: the answer is one of its turns."""
        told = json.loads(reply)
        turn = {"who": "model", "says": told["says"], "thoughts": told.get("thoughts", [])}
        return json.dumps({"model": "parley-1", "turns": [turn, {"who": "human", "says": "And then?"}]}).encode()
