"""A fake of OpenAI's API for responses; embeddings and models are those of `OpenAI`."""

from typing import ClassVar

from tests.providers.openai import OpenAI, is_reasoning
from tests.providers.refusal import JSON, check
from tests.providers.responses_request import ENCRYPTED, check_reasoning, read_responses
from tests.providers.scenario import COUNTED, Asked, Spent, Turn, pieces
from tests.providers.server import Act, Answer, Plain, Received, Stream, event
from tests.providers.turn import turn

_ARGUMENTS = ("arguments", "function_call_arguments")


class OpenAIResponses(OpenAI):
    """`/v1/responses`, its counting, `/v1/embeddings` and `/v1/models`; no chat completions."""

    name: ClassVar[str] = "openai-responses"

    def find(self, received: Received) -> Act | None:
        match received.method, received.path:
            case "POST", "/v1/responses":
                return self.responses
            case "POST", "/v1/responses/input_tokens":
                return self.count
            case "POST", "/v1/chat/completions":
                return None
            case _:
                return super().find(received)

    def responses(self, received: Received) -> Answer:
        """A response, plain or streamed."""
        body = received.json
        asked = read_responses(body)
        if is_reasoning(asked.model):
            check(body.get("temperature") in (None, 1), "Unsupported parameter: 'temperature' with this model.")
            check_reasoning(body["input"])
        else:
            check(not body.get("reasoning"), "Unsupported parameter: 'reasoning.effort' with this model.")
        said = turn(asked)
        encrypted = ENCRYPTED if "reasoning.encrypted_content" in (body.get("include") or []) else None
        items = _items(said, encrypted, shows=asked.shows)
        if not asked.stream:
            return Plain(_response(body, asked, "completed", items, said.spent))
        return _Writer(body, asked).stream(said, items)

    def count(self, received: Received) -> Answer:
        """The tokens of a request."""
        read_responses(received.json)
        return Plain({"object": "response.input_tokens", "input_tokens": COUNTED})


def _items(said: Turn, encrypted: str | None, *, shows: bool) -> list[JSON]:
    items: list[JSON] = []
    if said.thought:
        summary = [{"type": "summary_text", "text": said.thought}] if shows else []
        reasoning: JSON = {"id": "rs_fake1", "type": "reasoning", "summary": summary}
        items.append({**reasoning, "encrypted_content": encrypted} if encrypted else reasoning)
    if said.text:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": said.text}
        head = {"id": "msg_fake1", "type": "message", "status": "completed"}
        items.append({**head, "content": [part], "role": "assistant"})
    for index, call in enumerate(said.calls):
        named = {"call_id": f"call_fake{index}", "name": call.name}
        if call.free is not None:
            head = {"id": f"ctc_fake{index}", "type": "custom_tool_call", "status": "completed"}
            items.append({**head, **named, "input": call.text})
            continue
        head = {"id": f"fc_fake{index}", "type": "function_call", "status": "completed"}
        items.append({**head, "arguments": call.text, **named})
    return items


def _response(body: JSON, asked: Asked, status: str, output: list[JSON], spent: Spent | None = None) -> JSON:
    usage = spent and {
        "input_tokens": spent.input,
        "input_tokens_details": {"cached_tokens": spent.cached},
        "output_tokens": spent.output,
        "output_tokens_details": {"reasoning_tokens": spent.reasoning},
        "total_tokens": spent.input + spent.output,
    }
    return {
        "id": "resp_fake1",
        "object": "response",
        "created_at": 1755280612,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": None,
        "model": asked.model,
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
        "safety_identifier": None,
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, "verbosity": "medium", **(body.get("text") or {})},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": [{"strict": True, "description": None, **tool} for tool in body.get("tools") or []],
        "top_logprobs": 0,
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": usage,
        "user": None,
        "metadata": body.get("metadata") or {},
    }


class _Writer:
    """The events of one stream, numbered."""

    def __init__(self, body: JSON, asked: Asked) -> None:
        self._body = body
        self._asked = asked
        self._events: list[bytes] = []

    def _write(self, kind: str, **more: object) -> None:
        self._events.append(event({"type": kind, "sequence_number": len(self._events), **more}, kind))

    def stream(self, said: Turn, items: list[JSON]) -> Stream:
        for kind in ("created", "in_progress"):
            self._write(f"response.{kind}", response=_response(self._body, self._asked, "in_progress", []))
        if said.breaks:
            self._item(0, items[0], limit=len(said.pieces) // 2)
            if said.breaks == "error":
                self._fail()
            return Stream(self._events, is_cut=said.breaks == "cut")
        for index, item in enumerate(items):
            self._item(index, item)
        response = _response(self._body, self._asked, "completed", items, said.spent)
        self._write("response.completed", response=response)
        return Stream(self._events)

    def _fail(self) -> None:
        problem = {"code": "server_error", "message": "The server had an error."}
        self._write("error", error={"type": "server_error", **problem, "param": None})
        failed = _response(self._body, self._asked, "failed", [])
        self._write("response.failed", response={**failed, "error": problem})

    def _item(self, index: int, item: JSON, limit: int | None = None) -> None:
        started = {**item, "status": "in_progress"} if "status" in item else dict(item)
        match item["type"]:
            case "message":
                self._write("response.output_item.added", output_index=index, item={**started, "content": []})
                if not self._text(index, item, limit):
                    return
            case "reasoning":
                self._write("response.output_item.added", output_index=index, item={**started, "summary": []})
                self._summary(index, item)
            case kind:
                is_custom = kind == "custom_tool_call"
                name, event_name = ("input", "custom_tool_call_input") if is_custom else _ARGUMENTS
                self._write("response.output_item.added", output_index=index, item={**started, name: ""})
                where = {"item_id": item["id"], "output_index": index}
                for piece in pieces(item[name], 11):
                    self._write(f"response.{event_name}.delta", **where, delta=piece, obfuscation="ab")
                self._write(f"response.{event_name}.done", **where, **{name: item[name]})
        self._write("response.output_item.done", output_index=index, item=item)

    def _text(self, index: int, item: JSON, limit: int | None) -> bool:
        where = {"item_id": item["id"], "output_index": index, "content_index": 0}
        part = item["content"][0]
        self._write("response.content_part.added", **where, part={**part, "text": ""})
        for piece in pieces(part["text"])[:limit]:
            self._write("response.output_text.delta", **where, delta=piece, logprobs=[], obfuscation="ab")
        if limit is not None:
            return False
        self._write("response.output_text.done", **where, text=part["text"], logprobs=[])
        self._write("response.content_part.done", **where, part=part)
        return True

    def _summary(self, index: int, item: JSON) -> None:
        if not item["summary"]:
            return
        where = {"item_id": item["id"], "output_index": index, "summary_index": 0}
        text = item["summary"][0]["text"]
        empty = {"type": "summary_text", "text": ""}
        self._write("response.reasoning_summary_part.added", **where, part=empty)
        for piece in pieces(text, 13):
            self._write("response.reasoning_summary_text.delta", **where, delta=piece, obfuscation="ab")
        self._write("response.reasoning_summary_text.done", **where, text=text)
        self._write("response.reasoning_summary_part.done", **where, part={"type": "summary_text", "text": text})
