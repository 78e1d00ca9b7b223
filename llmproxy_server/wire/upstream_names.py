"""The addresses of upstreams' names, remembered for a moment (RFC 8305 has the connecting to them)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from importlib import import_module
from typing import Any

from llmproxy_core.tasks import Tasks

REMEMBERED_S = 10.0
"""How long an answer is used; nothing tells us how long the name's owner means it."""
_MOST_NAMES = 256

Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
Addresses = list[Address]


class Names:
    """Asks for addresses; for one name at most once at a time, however many want to know."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: Tasks) -> None:
        self._loop = loop
        self._tasks = tasks
        self._known: dict[tuple[str, int], tuple[float, Addresses]] = {}
        self._asked: dict[tuple[str, int], asyncio.Task[Addresses | OSError]] = {}
        self._resolver = _aiodns_resolver(loop)

    async def addresses(self, name: str, port: int) -> Addresses:
        """At least one, the first to be tried first, another one each time; OSError when there is none."""
        if (literal := _literal(name, port)) is not None:
            return [literal]
        key = (name, port)
        until_s, known = self._known.get(key, (0.0, []))
        if until_s <= self._loop.time():
            known = await self._ask(key)
        if key in self._known and len(known) > 1:
            self._known[key] = (self._known[key][0], known[1:] + known[:1])
        return known

    async def _ask(self, key: tuple[str, int]) -> Addresses:
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = self._tasks.start(self._resolve(key), name="name look-up")
        found = await asyncio.shield(task)  # whoever leaves: others wait for it too
        if isinstance(found, OSError):
            raise type(found)(*found.args)  # each its own: a traceback is written into it
        return found

    async def _resolve(self, key: tuple[str, int]) -> Addresses | OSError:
        name, port = key
        try:
            found = await self._look_up(name, port)
        except OSError as error:
            return error
        else:
            if not found:
                return socket.gaierror(socket.EAI_NONAME, "no addresses")
            if len(self._known) >= _MOST_NAMES:
                self._known.clear()
            self._known[key] = (self._loop.time() + REMEMBERED_S, found)
            return found
        finally:
            del self._asked[key]

    async def _look_up(self, name: str, port: int) -> Addresses:
        flags = socket.AI_ADDRCONFIG
        if self._resolver is None:
            return list(await self._loop.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags))
        return await _ask_aiodns(self._resolver, name, port, flags)

    async def aclose(self) -> None:
        """Free what it holds."""
        if self._resolver is not None:
            await self._resolver.close()


def _literal(name: str, port: int) -> Address | None:
    """The address of a *name* that is one itself."""
    try:
        version = ipaddress.ip_address(name).version
    except ValueError:
        return None
    if version == 4:
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (name, port)
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (name, port, 0, 0)


def _aiodns_resolver(loop: asyncio.AbstractEventLoop) -> Any:
    """Without a thread for each question, where aiodns is installed."""
    try:
        aiodns: Any = import_module("aiodns")
    except ImportError:
        return None
    return aiodns.DNSResolver(loop=loop)


async def _ask_aiodns(resolver: Any, name: str, port: int, flags: int) -> Addresses:
    aiodns: Any = import_module("aiodns")
    try:
        found = await resolver.getaddrinfo(name, port=port, type=socket.SOCK_STREAM, flags=flags)
    except aiodns.error.DNSError as error:
        raise socket.gaierror(socket.EAI_NONAME, "aiodns found nothing") from error
    addresses: Addresses = []
    for node in found.nodes:
        host = node.addr[0].decode() if isinstance(node.addr[0], bytes) else node.addr[0]
        if (address := _literal(host.partition("%")[0], port)) is not None:
            addresses.append(address)
    return addresses
