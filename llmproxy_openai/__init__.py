"""
The OpenAI dialect, pure: bytes in, values out.

Public are the dialect, and what a dialect that is a variant of it is built of: forms say which members of a body
mean which fields; a subclass of `OpenAIDialect` exchanges some of them.
"""

from llmproxy_core.wire.form import Form, Group
from llmproxy_core.wire.members import Kind, Members
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.calls import write_call
from llmproxy_openai.chat_form import CHAT_FORM, MESSAGES, MODEL, RESPONSE_FORMAT, TOOLS, effort_of
from llmproxy_openai.completions_form import COMPLETIONS_FORM
from llmproxy_openai.dialect import OpenAIDialect
from llmproxy_openai.embeddings import write_reply as write_embeddings_reply
from llmproxy_openai.finish import WORDS as FINISH_WORDS
from llmproxy_openai.model_family import EFFORTS, ModelFamily, fitting_effort
from llmproxy_openai.reply import ReplyForm
from llmproxy_openai.scan import ChunkScanner
from llmproxy_openai.stream_form import StreamForm
from llmproxy_openai.stream_render import ChunkRenderer
from llmproxy_openai.stream_write import ChunkWriter
from llmproxy_openai.translated_messages import MessageTranslator
from llmproxy_openai.translated_parts import PartTranslator
from llmproxy_openai.translated_request import RequestTranslator
from llmproxy_openai.usage import read_usage, write_usage

__all__ = [
    "CHAT_FORM",
    "COMPLETIONS_FORM",
    "ChunkRenderer",
    "ChunkScanner",
    "ChunkWriter",
    "EFFORTS",
    "FINISH_WORDS",
    "Form",
    "Group",
    "Kind",
    "MESSAGES",
    "MODEL",
    "Members",
    "MessageTranslator",
    "ModelFamily",
    "OpenAIDialect",
    "PartTranslator",
    "RESPONSE_FORMAT",
    "ReplyForm",
    "RequestTranslator",
    "StreamForm",
    "TOOLS",
    "Wire",
    "effort_of",
    "fitting_effort",
    "read_usage",
    "write_call",
    "write_embeddings_reply",
    "write_usage",
]
