"""The processor my_processor for llmproxy."""

from collections.abc import Iterable
from typing import Any

import attrs

from llmproxy_core import Exchange, Handler, Operation, ProcessorType, Response, Services, hookimpl, option, plain_text


@attrs.frozen(kw_only=True)
class MyProcessorConfig:
    """Adds a header to every answer."""

    text: str = option(
        "What the header says.", default="hello", validator=plain_text, fills_config_value=True, example="hello"
    )


class MyProcessor:
    """One instance serves all calls: nothing of a call is kept on it."""

    def __init__(self, config: MyProcessorConfig, services: Services) -> None:
        self._config = config

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        # Before call_next: change the request, refuse it (raise a RequestRejected), or answer it.
        response = await call_next(exchange)
        # After it: say what you need of the answer (on_finish, keep_body, watch, rewrite). Never read it yourself.
        exchange.response_headers.append(("x-my-processor", self._config.text))
        return response


MY_PROCESSOR = ProcessorType(
    name="my_processor",
    config=MyProcessorConfig,
    build=MyProcessor,
    operations=frozenset({Operation.CHAT, Operation.EMBEDDINGS}),
    skippable=True,  # a route that serves other operations too passes it by there
)


@hookimpl
def llmproxy_processors() -> Iterable[ProcessorType[Any]]:
    return [MY_PROCESSOR]
