"""How a request is sent to one LLM: in which API, for which model, where to, and at what price."""

from __future__ import annotations

from urllib.parse import quote

from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.errors import RouteNotFound, Unsupported
from llmproxy_core.estimate import BILLED_OPERATIONS
from llmproxy_core.http_prices import ModelPrices
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.model_map import ModelMap
from llmproxy_core.money import Price
from llmproxy_core.path import check_path
from llmproxy_core.request import CONVERSATIONS, Request
from llmproxy_core.upstream_url import passed_query

Asked = tuple[str, str | None, bool, bool]
"""What a request is sent by: the name of its API, its model, whether it streams, and asks for the usage then."""
Plan = tuple[Api, str | None, str, Price | None, bool, bool]
"""
How it is sent: in which API, for which model, where to, and at what price.

Then whether a whole answer is in the form, and of the kind, that the request asks for; and whether its body goes out as
it came, but for what only some hold.
"""
_REMEMBERED = 512  # the names of models are the callers' choice, so the memory of them is bounded


class Plans:
    """Makes the plans of one LLM, and keeps those that are the same whatever else a request holds."""

    def __init__(
        self,
        config: HttpLLMConfig,
        dialect: Dialect,
        prices: ModelPrices,
        *,
        base: str,
        model_base: str | None,
        query: str,
    ) -> None:
        """*base*, *model_base* and *query* are as in `HttpLLM`."""
        self._config = config
        self._dialect = dialect
        self._apis = {api.name: api for api in dialect.apis}
        self._prices = prices
        self._base = base
        self._model_base = model_base
        self._query = query
        self.models = ModelMap(config.models, config.model)
        self.kept: dict[Asked | None, Plan] = {}

    async def make(self, request: Request, key: Asked | None) -> Plan | None:
        """None for a count of tokens that the provider does not offer. Unsupported, RouteNotFound."""
        api, sent, own = self._api(request), self.sent(request.head.model), request.api
        if api is None:
            return None
        url = self._url(api, request, sent)
        # Before it is sent: whoever leaves after that is billed.
        billed = sent is not None and api.operation in BILLED_OPERATIONS
        price = await self._prices.of(sent) if sent is not None and billed else None
        same_form = own is not None and own.form == api.form
        as_asked, as_is = same_form and not request.head.stream, same_form and not self._changes(request, api, sent)
        plan = (api, sent, url, None if price is None else price.price, as_asked, as_is)
        self._keep(key, request, plan)
        return plan

    def sent(self, asked: str | None) -> str | None:
        """The name of the model that is sent where *asked* was asked for. RouteNotFound: it is not served."""
        if asked is None:
            return self._config.model
        sent = self.models.sent(asked)
        if sent is None:
            raise RouteNotFound(f"No LLM here serves the model {asked[:128]!r}", code="model_not_found", param="model")
        return sent

    def _changes(self, request: Request, api: Api, sent: str | None) -> bool:
        """Whether something is changed in *request*, whatever else it holds, though it goes out in its own form."""
        head = request.head
        streams = api.operation is Operation.CHAT and head.stream
        asks = self._config.ask_usage and not head.wants_usage
        return sent != head.model or (streams and (asks or not self._config.supports_streaming))

    def _api(self, request: Request) -> Api | None:
        """The wire form to send in: the client's own when the dialect is the same, else this dialect's for the task."""
        own, operation = request.api, request.operation
        same = None if own is None else self._apis.get(own.name)
        if same is not None and same.streams is None:
            return same
        streams = operation is Operation.CHAT and request.head.stream and self._config.supports_streaming
        if same is not None and same.streams is streams:
            return same
        single = own is not None and "{model}" in own.path if operation is Operation.MODELS else None
        fitting = [
            api
            for api in self._dialect.apis
            if api.operation is operation
            and api.streams in (None, streams)
            and (single is None or ("{model}" in api.path) == single)
        ]
        if same is not None:  # the other way to be answered, but for the same kind of model (`tunedModels/…`)
            folder = same.path.partition("{model}")[0]
            fitting.sort(key=lambda api: not api.path.startswith(folder))
        if fitting:
            return fitting[0]
        if operation is Operation.COUNT_TOKENS:
            return None
        raise Unsupported(f"The LLM '{self._config.name}' does not offer {operation}", code="unsupported_operation")

    def _url(self, api: Api, request: Request, sent: str | None) -> str:
        path, base = api.path, self._base
        if self._model_base is not None and api.has_body:
            base = self._model_base
        if "{model}" in path or "{model}" in base:
            slash = "" if "%2f" in request.path.lower() else "/"  # as the client wrote it: some servers tell them apart
            name = quote(sent or "", safe=":@" + slash)
            check_path("/" + name)  # dot segments in it would lead to another path of the provider's
            path, base = path.replace("{model}", name), base.replace("{model}", name)
        asked = request.api
        is_own = asked is not None and asked.form == api.form
        if is_own and asked is not None and request.query:
            query = passed_query(request.query, asked, api, self._query)
        else:
            parts = (api.query, "" if is_own else api.translated_query, self._query)
            query = "&".join(part for part in parts if part)
        return f"{base}{path}?{query}" if query else base + path

    def _keep(self, key: Asked | None, request: Request, plan: Plan) -> None:
        own, api = request.api, plan[0]
        if key is None or own is None or api.operation not in CONVERSATIONS:
            return
        if self._model_base is not None or "{model}" in f"{own.path}{api.path}{self._base}":
            return
        if len(self.kept) >= _REMEMBERED:
            self.kept.clear()
        self.kept[key] = plan
