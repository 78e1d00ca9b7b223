"""HTTP/1.1 on the wire: what faces the clients, and what calls the upstreams, as protocols of asyncio."""
