"""
OpenAI's Responses API: items instead of messages, in requests and answers alike.

`form` and what it is made of say what a request means, `translated` what becomes of one of another protocol. `reply`
and `answer` are about whole answers, `stream_read` and `scan` about streams that come, `render` and `stream_write`
about those that go.
"""

from llmproxy_openai.responses.dialect import ResponsesDialect

__all__ = ["ResponsesDialect"]
