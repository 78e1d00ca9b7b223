"""
The OpenAI dialect, pure: bytes in, values out.

Public are the dialect, and what a dialect that is a variant of it is built of: forms say which members of a body
mean which fields; a subclass of `OpenAIDialect` exchanges some of them.
"""

from llmproxy_core.wire.form import Form, Group
from llmproxy_core.wire.members import Kind, Members
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.chat_form import CHAT_FORM
from llmproxy_openai.completions_form import COMPLETIONS_FORM
from llmproxy_openai.dialect import OpenAIDialect
from llmproxy_openai.reply import ReplyForm
from llmproxy_openai.stream_render import StreamForm
from llmproxy_openai.usage import read_usage, write_usage

__all__ = [
    "CHAT_FORM",
    "COMPLETIONS_FORM",
    "Form",
    "Group",
    "Kind",
    "Members",
    "OpenAIDialect",
    "ReplyForm",
    "StreamForm",
    "Wire",
    "read_usage",
    "write_usage",
]
