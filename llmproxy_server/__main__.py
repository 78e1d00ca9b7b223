"""`python -m llmproxy_server` is the command `llmproxy`."""

import sys

from llmproxy_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
