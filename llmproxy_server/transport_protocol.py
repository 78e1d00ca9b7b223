"""A connection of aiohttp's that knows whether it was used before, and whether anything has come on it since."""

from __future__ import annotations

from aiohttp.client_proto import ResponseHandler


class UpstreamProtocol(ResponseHandler):
    """What is asked on a kept connection that is closed without a word may be asked again."""

    was_used = False
    """Whether it has carried a call."""
    heard = False
    """Whether the upstream has said anything to the call that it carries now."""

    def begin(self) -> bool:
        """A call begins; whether it is not the first."""
        was_used, self.was_used, self.heard = self.was_used, True, False
        return was_used

    def data_received(self, data: bytes) -> None:
        self.heard = self.heard or bool(data)  # aiohttp also calls with nothing
        super().data_received(data)
