"""Model lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from llmproxy_core import ModelInfo
from llmproxy_core.wire import INTEGER, STRING, Members, encode, garbage, join_array, join_object

_LATEST_S = 253_402_300_799  # the year 9999


def write_models(models: Sequence[ModelInfo]) -> bytes:
    """The list of *models*, which is the last page."""
    return join_object(
        {
            "data": join_array(map(write_model, models)),
            "has_more": b"false",
            "first_id": encode(models[0].id if models else None),
            "last_id": encode(models[-1].id if models else None),
        }
    )


def write_model(model: ModelInfo) -> bytes:
    """One entry of the list."""
    created = datetime.fromtimestamp(min(max(model.created or 0, 0), _LATEST_S), UTC)
    members = {
        "type": b'"model"',
        "id": encode(model.id),
        "display_name": encode(model.name or model.id),
        "created_at": encode(created.strftime("%Y-%m-%dT%H:%M:%SZ")),
    }
    if model.input_limit is not None:
        members["max_input_tokens"] = encode(model.input_limit)
    if model.output_limit is not None:
        members["max_tokens"] = encode(model.output_limit)
    return join_object(members)


def read_models(body: bytes) -> list[ModelInfo]:
    """The entries of a list, or the one entry that *body* is."""
    members = Members(body, "", garbage)
    if members.peek("data") is None:
        return [_read(members)]
    return [_read(Members(text, f"data[{place}]", garbage)) for place, text in enumerate(members.array("data"))]


def _read(members: Members) -> ModelInfo:
    return ModelInfo(
        members.need("id", STRING),
        name=members.take("display_name", STRING),
        created=_seconds(members.take("created_at", STRING)),
        owner="anthropic",
        input_limit=members.take("max_input_tokens", INTEGER),
        output_limit=members.take("max_tokens", INTEGER),
    )


def _seconds(text: str | None) -> int | None:
    """A time of RFC 3339 as seconds since the epoch; None for what is none."""
    try:
        return None if text is None else int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None
