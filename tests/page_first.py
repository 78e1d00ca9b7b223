"""A page, and how a connection begins with it: it was lent to aiohttp before what follows comes on it."""

from aiohttp import web

from llmproxy_server.pages.server import Page
from tests.rawclient import Client

PATH = "/page-of-the-tests"


async def open_page(client: Client) -> None:
    """Have the connection of *client* lent for a page."""
    client.send(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await client.until(b"\r\n\r\n")
    assert b" 200 " in head, head
    assert await client.exactly(5) == b"shown"


async def show(request: web.Request) -> web.StreamResponse:
    return web.Response(text="shown")


PAGE = Page(PATH, show)
