"""
What dialects are built of: JSON text read member by member, changed in one place, and written again.

A `Form` says which members of a body mean which fields of a request; `read_request` and `write_request` do the rest, so
that untouched members keep their bytes. `read_error` reads every envelope an error arrives in. `EventScanner` copies a
stream and looks only at the events that tell something.
"""

from llmproxy_core.jsontext import scan
from llmproxy_core.sse import BOM, Event, SSEDecoder, SSEError, event_start, parse_event, split_events
from llmproxy_core.sse import encode as encode_event
from llmproxy_core.wire import text_signature, text_tool
from llmproxy_core.wire.answer_schema import answer_schema
from llmproxy_core.wire.counts import MOST_TOKENS, Counts, tier_word, true_count
from llmproxy_core.wire.envelope import Envelope, read_body
from llmproxy_core.wire.event_reader import UNSEEN, EventReader, failed
from llmproxy_core.wire.event_scanner import EventScanner
from llmproxy_core.wire.form import Changes, Form, Group, Values, json, strings, unsaid, value
from llmproxy_core.wire.last_event import completed
from llmproxy_core.wire.made_id import made_id
from llmproxy_core.wire.members import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    STRING_OR_STRINGS,
    STRINGS,
    Fail,
    Kind,
    Members,
    array,
    bad_request,
    decode,
    garbage,
)
from llmproxy_core.wire.object_pieces import ObjectPieces
from llmproxy_core.wire.open_calls import OpenCalls
from llmproxy_core.wire.plain import is_plain, plain_message, plain_parts, plain_text, plain_turn, usual
from llmproxy_core.wire.provider_error import auth_error, read_error, reported_error
from llmproxy_core.wire.request_body import read_parameters, read_request, write_request
from llmproxy_core.wire.result_order import results_next
from llmproxy_core.wire.splice import (
    decode_array,
    decode_object,
    encode,
    join_array,
    join_object,
    json_text,
    with_items,
    with_members,
)
from llmproxy_core.wire.tool_pairs import Answered, check_choice, paired, uses_tools
from llmproxy_core.wire.wire import Wire, nested

__all__ = [
    "BOM",
    "BOOLEAN",
    "INTEGER",
    "MOST_TOKENS",
    "NUMBER",
    "STRING",
    "STRINGS",
    "STRING_OR_STRINGS",
    "UNSEEN",
    "Answered",
    "Changes",
    "Counts",
    "Envelope",
    "Event",
    "EventReader",
    "EventScanner",
    "Fail",
    "Form",
    "Group",
    "Kind",
    "Members",
    "ObjectPieces",
    "OpenCalls",
    "SSEDecoder",
    "SSEError",
    "Values",
    "Wire",
    "answer_schema",
    "array",
    "auth_error",
    "bad_request",
    "check_choice",
    "completed",
    "decode",
    "decode_array",
    "decode_object",
    "encode",
    "encode_event",
    "event_start",
    "failed",
    "garbage",
    "is_plain",
    "join_array",
    "join_object",
    "json",
    "json_text",
    "made_id",
    "nested",
    "paired",
    "parse_event",
    "plain_message",
    "plain_parts",
    "plain_text",
    "plain_turn",
    "read_body",
    "read_error",
    "read_parameters",
    "read_request",
    "reported_error",
    "scan",
    "split_events",
    "strings",
    "text_signature",
    "results_next",
    "text_tool",
    "tier_word",
    "true_count",
    "unsaid",
    "uses_tools",
    "usual",
    "value",
    "with_items",
    "with_members",
    "write_request",
]
