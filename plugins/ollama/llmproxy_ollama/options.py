"""`options`: an object whose members are parameters of ours, of the sampling alone, or of the machine."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import asdict

from llmproxy_core.chat import ChatRequest, JSONText
from llmproxy_core.wire import (
    INTEGER,
    NUMBER,
    STRING_OR_STRINGS,
    Changes,
    Group,
    Kind,
    Members,
    Values,
    Wire,
    encode,
    join_object,
    usual,
    with_members,
)

_FIELDS: Mapping[str, tuple[str, Kind[Any]]] = {
    "num_predict": ("max_output_tokens", INTEGER),
    "temperature": ("temperature", NUMBER),
    "top_p": ("top_p", NUMBER),
    "top_k": ("top_k", INTEGER),
    "seed": ("seed", INTEGER),
    "presence_penalty": ("presence_penalty", NUMBER),
    "frequency_penalty": ("frequency_penalty", NUMBER),
    "stop": ("stop", STRING_OR_STRINGS),
}
OPTION_NAMES = {field: f"options.{name}" for name, (field, _) in _FIELDS.items()}
"""How clients spell our fields."""

_OF_THE_MACHINE = (
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "draft_num_predict"),
    *("low_vram", "use_mmap", "use_mlock", "numa", "f16_kv", "logits_all", "vocab_only"),
)
"""Members about how a model is loaded: nobody but a machine that loads models needs them, and no answer does."""


_plain_options = usual(
    msgspec.defstruct(
        "_PlainOptions",
        [(field, kind.type | None, None) for field, kind in _FIELDS.values()],
        rename={field: name for name, (field, _) in _FIELDS.items()},
        forbid_unknown_fields=True,
        gc=False,
    )
)
"""Options of the sampling alone."""


def _take(options: Members) -> dict[str, Any]:
    return _checked({field: options.take(name, kind) for name, (field, kind) in _FIELDS.items()})


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    stop, bound = values["stop"], values["max_output_tokens"]
    values["stop"] = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if bound is not None and bound < 0:  # -1: no bound; -2: what fits
        values["max_output_tokens"] = None
    return values


def _read(members: Members, wire: Wire) -> Values:
    text = members.raw("options")
    if text is None:
        return {}
    if (plain := _plain_options(text)) is not None:
        return _checked(asdict(plain))
    options = Members(text, members.at("options"), wire.fail)
    values = _take(options)
    for name in _OF_THE_MACHINE:
        options.raw(name)
    for name, text in options.rest("options.").items():
        members.leave(name, text)
    return values


def _write(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    text = before.get("options", b"null")
    was = {} if text == b"null" else _take(Members(text, "options", wire.fail))
    changes: Changes = {}
    for name, (field, _) in _FIELDS.items():
        now = getattr(chat, field)
        if now != was.get(field, () if name == "stop" else None):
            changes[name] = None if now in (None, ()) else encode(now)
    if text != b"null":
        return {"options": with_members(text, changes)}
    said = {name: each for name, each in changes.items() if each is not None}
    return {"options": join_object(said) if said else None}


OPTIONS = Group(tuple(field for field, _ in _FIELDS.values()), _read, _write, frozenset({"options"}), says_nothing=True)
