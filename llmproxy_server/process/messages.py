"""What a parent and its workers tell each other."""

from __future__ import annotations

from typing import Any

import msgspec

from llmproxy_core.endpoint import EndpointReply
from llmproxy_core.errors import Problem

Pairs = list[tuple[str, str]]
ASK_S = 0.5
"""How long a worker may take to answer a look-up that is asked in all."""
CHANGE_S = 5.0
"""The same for a call that changes something."""


def patience_s(method: str) -> float:
    """How long is waited for each worker's answer to a call of *method*."""
    return ASK_S if method == "GET" else CHANGE_S


class Told(msgspec.Struct, tag=True, array_like=True):
    """A message. Those with an *id* are questions and their answers."""


class Place(msgspec.Struct, array_like=True):
    """A Problem."""

    path: str
    message: str
    line: int | None = None
    column: int | None = None

    @classmethod
    def of(cls, problem: Problem) -> Place:
        return cls(problem.path, problem.message, problem.line, problem.column)

    def problem(self) -> Problem:
        return Problem(self.path, self.message, self.line, self.column)


# -- from the parent ---------------------------------------------------------------------------------------------------


class Begin(Told):
    """The first message: who the worker is, and what it serves. Descriptors are inherited."""

    slot: str
    snapshot: bytes
    listening: list[int]
    own_listening: list[int] | None
    metrics: str
    number: int
    """Of the generation."""
    workers: int
    """How many there are."""
    greets: bool
    """Whether Ready is to say what people are told."""
    handed_down: bool
    """Whether the sockets are the service manager's."""
    first: bytes
    """What the process began with: what only a restart changes is as there."""
    reload_ok: bool
    """Whether the last reload went well."""
    drained: tuple[str, ...] = ()
    """
    The LLMs that are out of service.

    Whoever adds a field gives it a default: until it is replaced, the parent of an older version may start workers of a
    newer one, which was installed in the same place.
    """


class Prepare(Told):
    """Build this configuration beside the one that is served; answered by Prepared."""

    number: int
    snapshot: bytes


class Commit(Told):
    """Serve what was prepared under *number*; it is the generation *generation*."""

    number: int
    generation: int


class Abort(Told):
    """Drop what was prepared under *number*."""

    number: int


class Outcome(Told):
    """A reload is over: whether it went well. For the health of each worker."""

    ok: bool


class Drain(Told):
    """Have the LLM be given no more calls, or calls again, if it is not so already."""

    llm: str
    drained: bool


class Ask(Told):
    """Answer this for yourself alone; answered by Answer."""

    id: int
    method: str
    path: str
    query: str
    headers: Pairs
    body: bytes


class Stop(Told):
    """Drain, then end."""

    relieved: bool = False
    """Whether others accept on the same sockets."""


class Answers(Told):
    """To AskAll: one of each worker, in the order of the slots."""

    id: int
    replies: list[Reply]


class ReloadOver(Told):
    """To Reload: what a Reloaded says, as JSON can."""

    id: int
    said: dict[str, Any]


# -- from a worker -----------------------------------------------------------------------------------------------------


class Ready(Told):
    """The worker serves."""

    greeting: str = ""


class Failed(Told):
    """The worker cannot serve, and ends."""

    problems: list[Place]


class Prepared(Told):
    """Nothing stands against serving *number*, or these problems do."""

    number: int
    problems: list[Place]


class Committed(Told):
    """It serves what it had prepared."""

    number: int


class Answer(Told):
    id: int
    reply: Reply


class AskAll(Told):
    """Ask this in every worker; answered by Answers."""

    id: int
    method: str
    path: str
    query: str
    headers: Pairs
    body: bytes


class Reload(Told):
    """Reload all workers; answered by ReloadOver."""

    id: int
    cause: str


class Reply(msgspec.Struct, array_like=True):
    """An EndpointReply."""

    status: int
    content_type: str
    headers: Pairs
    body: bytes

    @classmethod
    def of(cls, reply: EndpointReply) -> Reply:
        return cls(reply.status, reply.content_type, list(reply.headers), reply.body)

    def reply(self) -> EndpointReply:
        return EndpointReply(self.body, self.status, self.content_type, tuple(self.headers))


NO_ANSWER = Reply(503, "application/json", [], b"")
"""Of a worker that gave none in time."""

ToWorker = Begin | Prepare | Commit | Abort | Outcome | Drain | Ask | Stop | Answers | ReloadOver
ToParent = Ready | Failed | Prepared | Committed | Answer | AskAll | Reload
