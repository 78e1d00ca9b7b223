"""A dialect that names the model in the path, as Gemini's: OpenAI's in all else."""

from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import unquote

from llmproxy_core import Api, Located, Operation
from llmproxy_openai import CHAT_FORM, Form, OpenAIDialect, ReplyForm, StreamForm

GENERATE = Api("pathy.generate", Operation.CHAT, "POST", "/models/{model}:generate")


class PathModelDialect(OpenAIDialect):
    """`POST /v1/models/NAME:generate` with a chat body."""

    name = "pathy"
    apis = (GENERATE,)
    request_forms: ClassVar[Mapping[str, Form]] = {GENERATE.name: CHAT_FORM}
    reply_forms: ClassVar[Mapping[str, ReplyForm]] = {GENERATE.name: ReplyForm(GENERATE.name, "chat.completion")}
    stream_forms: ClassVar[Mapping[str, StreamForm]] = {
        GENERATE.name: StreamForm(GENERATE.name, "chat.completion.chunk")
    }

    def locate(self, path: str) -> Sequence[Located]:
        start, verb = path.find("/models/"), ":generate"
        if start < 0 or not path.endswith(verb):
            return []
        root = start - 3 if path.endswith("/v1", 0, start) else start
        return [Located(GENERATE, root, unquote(path[start + len("/models/") : -len(verb)]))]
