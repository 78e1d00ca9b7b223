"""The server of llmproxy: the edge, the transport, the loader and the command line."""
