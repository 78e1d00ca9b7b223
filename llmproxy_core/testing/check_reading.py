"""A processor reads of a call what it is declared to read: the rest stays bytes that are copied."""

from __future__ import annotations

from llmproxy_core.response import Response
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.loop import in_own_loop
from llmproxy_core.testing.played import PlayedStream
from llmproxy_core.testing.stage import Run
from llmproxy_core.testing.stand import Stand
from llmproxy_core.testing.trial import completed, trials
from llmproxy_core.testing.verdict import NotConforming


def reads_what_it_declares(declared: Declared) -> None:
    """Without `reads_request` no body is looked into, without `reads_answer` nobody subscribes to the answer."""
    stand = Stand(declared)
    in_own_loop(lambda: _reads(stand))


async def _reads(stand: Stand) -> None:
    declared = stand.declared
    for asked, way, play in trials(stand):
        run = await completed(stand, asked, way, play)
        if _read_request(run) and not (declared.reads_request or declared.changes_request):
            raise NotConforming(
                f"{run.where}: it looks into the request's body, which has to be decoded for it; declare reads_request "
                "= True when that is meant"
            )
        reads = declared.reads_answer or declared.changes_answer or declared.buffers
        if not reads and any(made.response is not None and _read(made.response) for made in run.main):
            raise NotConforming(
                f"{run.where}: it reads the answer, which is copied as bytes else; declare reads_answer = True when "
                "that is meant"
            )


def _read_request(run: Run) -> bool:
    return run.main[0].looked_into if run.main else run.request.looked_into


def _read(response: Response) -> bool:
    return bool(response.subscriptions) or (isinstance(response, PlayedStream) and response.drained)
