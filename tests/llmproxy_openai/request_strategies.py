"""Chat requests as JSON text: every kind of message and part, in every order, with members nobody knows."""

from hypothesis import strategies as st

from tests.llmproxy_openai.json_strategies import any_string, arrays, numbers, objects, strings, unknown

# As in json_strategies, what is drawn from is made once.
TEXT_PART = ("type", '"text"')
PART_KINDS = st.sampled_from(("text", "image_url", "input_audio", "file", "made_up"))
IMAGE_URLS = strings(st.sampled_from(("https://example.com/a.png", "data:image/png;base64,AAAA")))
IMAGE_DETAILS = st.sampled_from(([], [("detail", '"low"')]))
ROLES = st.sampled_from(("system", "developer", "user", "assistant", "tool", "function"))
OF_ASSISTANTS = st.lists(
    st.sampled_from(
        [
            ("refusal", '"no"'),
            ("function_call", '{"name":"f","arguments":"{}"}'),
            ("reasoning_content", '"hm"'),
            ("audio", '{"id":"audio_1"}'),
            ("annotations", "[]"),
            ("name", '"ann"'),
        ]
    ),
    unique=True,
)


@st.composite
def parts(draw: st.DrawFn) -> str:
    match draw(PART_KINDS):
        case "text":
            members = [TEXT_PART, ("text", draw(any_string))]
        case "image_url":
            inner = [("url", draw(IMAGE_URLS)), *draw(IMAGE_DETAILS)]
            members = [("type", '"image_url"'), ("image_url", objects(draw, inner + draw(unknown())))]
        case "input_audio":
            members = [("type", '"input_audio"'), ("input_audio", '{"data":"AA==","format":"mp3"}')]
        case "file":
            members = [("type", '"file"'), ("file", '{"file_id" : "file-1"}')]
        case _:
            members = [("type", '"made_up"'), ("made_up", "[1.0]")]
    return _object(draw, members)


SOME_PARTS = st.lists(parts(), max_size=3)


@st.composite
def contents(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return draw(any_string)
    return arrays(draw, draw(SOME_PARTS))


@st.composite
def calls(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        function = objects(draw, [("name", '"f"'), ("arguments", draw(any_string))])
        return _object(draw, [("id", '"call_1"'), ("type", '"function"'), ("function", function)])
    return _object(draw, [("id", '"c"'), ("type", '"custom"'), ("custom", '{"name":"g","input":"x"}')])


CONTENT = contents()
CONTENT_OR_NULL = st.one_of(st.just("null"), CONTENT)
SOME_CALLS = st.lists(calls(), max_size=2)


@st.composite
def messages(draw: st.DrawFn) -> str:
    role = draw(ROLES)
    members = [("role", f'"{role}"')]
    match role:
        case "assistant":
            members += draw(OF_ASSISTANTS)
            members.append(("content", draw(CONTENT_OR_NULL)))
            if draw(st.booleans()):
                members.append(("tool_calls", arrays(draw, draw(SOME_CALLS))))
        case "tool":
            members += [("tool_call_id", '"call_1"'), ("content", draw(CONTENT))]
        case "function":
            members += [("name", '"f"'), ("content", draw(any_string))]
        case _:
            members.append(("content", draw(CONTENT)))
    return _object(draw, members)


MESSAGE = messages()
OPTIONS = [
    ("temperature", numbers),
    ("top_p", numbers),
    ("frequency_penalty", numbers),
    ("presence_penalty", numbers),
    ("max_tokens", st.just("10")),
    ("max_completion_tokens", st.sampled_from(("10", "null"))),
    ("stream", st.sampled_from(("true", "false", "null"))),
    ("stream_options", st.just('{ "include_usage": true, "include_obfuscation": false }')),
    ("stop", st.sampled_from(('"\\n"', '["a" , "b"]', "null"))),
    ("n", st.just("2")),
    ("seed", st.just("7")),
    ("logprobs", st.just("true")),
    ("top_logprobs", st.just("3")),
    ("logit_bias", st.just('{"50256": -1e2}')),
    ("tools", st.just('[{"type":"function","function":{"name":"f","parameters":{"a":1.0}}},{"type":"web"}]')),
    ("tool_choice", st.sampled_from(('"auto"', '{"type":"function","function":{"name":"f"}}', '"validated"'))),
    ("functions", st.just('[{"name":"f","parameters":{}}]')),
    ("function_call", st.sampled_from(('"none"', '{"name":"f"}'))),
    ("parallel_tool_calls", st.just("false")),
    ("response_format", st.sampled_from(('{"type":"json_object"}', '{"type":"grammar","grammar":"a"}'))),
    ("reasoning_effort", st.just('"low"')),
    ("reasoning", st.just('{"max_tokens": 5}')),
    ("modalities", st.just('["text", "audio"]')),
    ("audio", st.just('{"voice":"alloy","format":"mp3"}')),
    ("prediction", st.just('{"type":"content","content":"x"}')),
    ("user", st.just('"u"')),
    ("safety_identifier", st.just('"s"')),
    ("metadata", st.just('{"a":"b"}')),
    ("service_tier", st.just('"flex"')),
    ("store", st.just("true")),
    ("prompt_cache_key", st.just('"k"')),
    ("verbosity", st.just('"low"')),
    ("top_k", st.just("4")),
]
SOME_OPTIONS = st.lists(st.sampled_from(OPTIONS), max_size=6, unique=True)


@st.composite
def requests(draw: st.DrawFn, min_messages: int = 0) -> bytes:
    """The body of a chat request."""
    texts = draw(st.lists(MESSAGE, min_size=min_messages, max_size=4))
    members = [("model", draw(any_string)), ("messages", arrays(draw, texts))]
    members += [(name, draw(value)) for name, value in draw(SOME_OPTIONS)]
    return _object(draw, members).encode()


def _object(draw: st.DrawFn, members: list[tuple[str, str]]) -> str:
    return objects(draw, draw(st.permutations(members + draw(unknown()))))
