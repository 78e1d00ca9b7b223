"""Bounds: what a process keeps is listed, capped and exported; what is added to the code without it is noticed."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

import pytest

from llmproxy_core import BadRequest
from llmproxy_core.http_llm import HttpLLM
from llmproxy_core.request import Request
from llmproxy_server.bounds import BOUNDS, CAP, SIZE, Bound, _transports, export
from llmproxy_server.wire.upstream import WireTransport
from tests.proxy import Proxy, openai_at

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs/bounds.md").read_text()
MAKERS = frozenset(
    [
        "dict",
        "list",
        "set",
        "deque",
        "OrderedDict",
        "defaultdict",
        "Counter",
        "WeakSet",
        "WeakKeyDictionary",
        "WeakValueDictionary",
        "Queue",
        "SimpleQueue",
        "LifoQueue",
        "PriorityQueue",
        "LRUCache",
        "TTLCache",
        "TLRUCache",
        "lru_cache",
        "bytearray",
    ]
)
CHANGES = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "setdefault",
        "update",
    ]
)


# -- reading the source ----------------------------------------------------------------------------------------------


def sources() -> Iterator[tuple[str, ast.Module]]:
    """The modules that run in a server, by name."""
    for path in sorted([*ROOT.glob("llmproxy_*/**/*.py"), *ROOT.glob("plugins/*/llmproxy_*/**/*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "plugins":
            parts = parts[2:]
        if "testing" in parts or "skeleton" in parts or parts[-1].startswith("test_"):
            continue
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text())


def containers(module: str, tree: ast.AST, kind: str = "") -> Iterator[str]:
    """Attributes of objects that are containers, `module.Class.attribute`, and functions that remember."""
    for node in ast.iter_child_nodes(tree):
        inside = kind
        if isinstance(node, ast.ClassDef):
            inside = f"{node.name}."
            yield from (f"{module}.{inside}{name}" for name in _fields(node))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if {_name(it) for it in node.decorator_list} & {"lru_cache", "cache", "cached_property"}:
                yield f"{module}.{kind}{node.name}"
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_container(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self":
                        yield f"{module}.{kind}{each.attr}"
        yield from containers(module, node, inside)


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for each in node.body:
        if isinstance(each, ast.Assign | ast.AnnAssign) and each.value is not None:
            target = each.targets[0] if isinstance(each, ast.Assign) else each.target
            made = {_name(it.value) for it in each.value.keywords} if isinstance(each.value, ast.Call) else set()
            is_one = _is_container(each.value) or bool(made & MAKERS)
            if is_one and isinstance(target, ast.Name) and not target.id.startswith("__"):
                yield target.id


def _is_container(value: ast.expr) -> bool:
    if isinstance(value, ast.Dict | ast.List | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    return isinstance(value, ast.Call) and _name(value) in MAKERS


def _name(it: ast.expr) -> str:
    """What is called, or named: the last part of it."""
    while isinstance(it, ast.Call | ast.Subscript):
        it = it.func if isinstance(it, ast.Call) else it.value
    return it.attr if isinstance(it, ast.Attribute) else it.id if isinstance(it, ast.Name) else ""


# -- reading the page ------------------------------------------------------------------------------------------------


def section(title: str) -> str:
    return DOC.split(f"\n## {title}\n")[1].split("\n## ")[0]


def cells(title: str) -> list[list[str]]:
    rows = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def test_what_has_a_gauge_is_on_the_page_and_the_other_way_round() -> None:
    told = {(row[0], row[1]) for row in cells("With a gauge")[1:]}

    assert told == {(bound.name, bound.where) for bound in BOUNDS}
    assert all(len(row) == 4 and all(row) for row in cells("With a gauge"))
    assert len({bound.name for bound in BOUNDS}) == len(BOUNDS)


def listed() -> tuple[set[str], set[str]]:
    """Attributes, and whole classes, that the page lists."""
    attributes = {row[1] for row in cells("With a gauge")[1:]} | {row[0] for row in cells("Without a gauge")}
    classes = re.findall(r"`(llmproxy_[\w.]+)`", section("Gone with the call, the connection or the load"))
    assert len(classes) == len(set(classes))
    return attributes, set(classes)


def missing(found: Iterator[str]) -> list[str]:
    attributes, classes = listed()
    return sorted({it for it in found if it not in attributes and it.rpartition(".")[0] not in classes})


def test_every_container_in_the_code_is_on_the_page() -> None:
    """
    Whoever adds one says how much it may hold.

    If it lives as long as the process: a row with a cap, and a Bound in llmproxy_server/bounds.py. If it goes with a
    call or a connection, its class.
    """
    found = [it for module, tree in sources() for it in containers(module, tree)]

    assert missing(iter(found)) == []
    assert len(set(found)) > 100  # it looks at something


def test_nothing_is_on_the_page_that_is_not_in_the_code() -> None:
    known, names = set[str](), set[str]()
    for module, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                names.add(f"{module}.{node.name}")
                stored = (it for it in ast.walk(node) if isinstance(it, ast.Attribute | ast.Name))
                known.update(
                    f"{module}.{node.name}.{it.attr if isinstance(it, ast.Attribute) else it.id}" for it in stored
                )
            elif isinstance(node, ast.FunctionDef):
                known.add(f"{module}.{node.name}")
    attributes, classes = listed()

    assert attributes - known == set()
    assert classes - names == set()


@pytest.mark.parametrize(
    "line",
    [
        "self._seen: dict[str, int] = {}",
        "self._seen = set[str]()",
        "self._seen = self._other = []",
        "self._seen = deque(maxlen=None)",
        "self._seen = lru_cache(None)(len)",
    ],
)
def test_a_new_container_is_noticed(line: str) -> None:
    """What the tests above stand on."""
    tree = ast.parse(f"class New:\n    def __init__(self):\n        {line}\n")

    assert "llmproxy_server.new.New._seen" in missing(containers("llmproxy_server.new", tree))


@pytest.mark.parametrize(
    "source",
    [
        "class New:\n    seen: dict[str, int] = attrs.field(factory=dict)\n",
        "class New:\n    seen = []\n",
        "class New:\n    @lru_cache\n    def seen(self): ...\n",
    ],
)
def test_a_new_field_is_noticed(source: str) -> None:
    assert missing(containers("llmproxy_server.new", ast.parse(source))) == ["llmproxy_server.new.New.seen"]


def test_tables_of_modules_are_never_changed() -> None:
    """They are not on the page, since nothing is added to them."""
    changed = [f"{module}.{name}" for module, tree in sources() for name in _changed(tree)]

    assert changed == []


def test_a_table_that_is_changed_is_noticed() -> None:
    tree = ast.parse(
        "_A = {}\n_B = []\n_C = {1: 2}\n\ndef f():\n    _A[1] = 2\n    _B.append(1)\n    return _C.get(1)\n"
    )

    assert sorted(_changed(tree)) == ["_A", "_B"]


def _changed(tree: ast.Module) -> set[str]:
    tables = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_container(node.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CHANGES and isinstance(node.value, ast.Name):
            found.add(node.value.id)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            found.add(_name(node.value))
        elif isinstance(node, ast.Global):
            found.update(node.names)
    return tables & found


# -- a running server ------------------------------------------------------------------------------------------------


class Gauges:
    """A Meter that takes gauges."""

    def __init__(self) -> None:
        self.read: dict[tuple[str, str], Callable[[], float]] = {}

    def counter(self, name: str, doc: str, **labels: str) -> Any:
        raise AssertionError("not asked for")

    def histogram(self, name: str, doc: str, buckets: Sequence[float], **labels: str) -> Any:
        raise AssertionError("not asked for")

    def gauge(self, name: str, doc: str, read: Callable[[], float], **labels: str) -> None:
        assert doc.endswith(".")
        self.read[name, labels["what"]] = read


FULL = {
    **openai_at("http://127.0.0.1:9/v1", route={"operations": ["chat", "opaque"]}),
    "store": {"s": {"type": "memory"}},
}
FULL["llm"]["group"] = {"provider": "by_model", "members": ["openai"]}


async def test_every_bound_can_be_read_before_a_call_and_after_a_start() -> None:
    meter = Gauges()
    async with Proxy(FULL) as proxy:
        store: Any = proxy.gateway.stores["s"]
        store.key_value("a", max_bytes=1000)
        store.ledger("b")
        store.counter("c")
        export(proxy.server, meter)

        sizes = {bound.name: meter.read[SIZE, bound.name]() for bound in BOUNDS}
        caps = {bound.name: meter.read[CAP, bound.name]() for bound in BOUNDS}

    assert {name for name in sizes if not 0 <= sizes[name] <= caps[name]} == set()
    assert (sizes["generations"], caps["routes"], caps["hosts"]) == (1, 4096, 256)
    assert caps["store_bytes"] == 1000
    assert (caps["ledger_closed"], caps["ledger_records"]) == (100_000, 10_000)
    assert caps["connections"] == inf


def bound(name: str) -> Bound:
    return next(it for it in BOUNDS if it.name == name)


def opaque_paths(proxy: Proxy, number: int) -> None:
    proxy.gateway.match("GET", f"/v1/files/{number}")


def header_lines(proxy: Proxy, number: int) -> None:
    proxy.server._front.edges[0].heads.read(f"GET / HTTP/1.1\r\nHost: h{number}".encode())


def request_lines(proxy: Proxy, number: int) -> None:
    proxy.server._front.edges[0].heads.read(f"GET /{number} HTTP/1.1\r\nHost: localhost".encode())


def usual_heads(proxy: Proxy, number: int) -> None:
    edge = proxy.server._front.edges[0]
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h{number}.localhost\r\nContent-Type: application/json"
    incoming = edge.heads.read(head.encode())
    edge.door.note_usual(incoming, edge.door.match(incoming))


def plans(proxy: Proxy, number: int) -> None:
    llm = proxy.gateway.llms["openai"]
    assert isinstance(llm, HttpLLM)
    api, model = llm._plans._apis["openai.chat"], f"model-{number}"
    request = Request(operation=api.operation, dialect=llm._dialect, api=api, body=b'{"model":"%b"}' % model.encode())
    llm._plans._keep((api.name, model, False, False), request, (api, model, "http://url", None, True, True))


def hosts(proxy: Proxy, number: int) -> None:
    proxy.server._front.edges[0].door._hosts.is_ours(f"h{number}.localhost")


def model_names(proxy: Proxy, number: int) -> None:
    llm = proxy.gateway.llms["openai"]
    assert isinstance(llm, HttpLLM)
    llm.models.sent(f"model-{number}")


def picked(proxy: Proxy, number: int) -> None:
    group: Any = proxy.gateway.llms["group"]
    group.pick(f"model-{number}")


def upstream_headers(proxy: Proxy, number: int) -> None:
    llm = proxy.gateway.llms["openai"]
    assert isinstance(llm, HttpLLM)
    llm._crossing._crosses((f"x-{number}",))


def upstream_header_lines(proxy: Proxy, number: int) -> None:
    (wire,) = (it for it in _transports(proxy.server) if isinstance(it, WireTransport))
    heads = (wire._parts or wire._made()).heads
    assert heads.read(f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Made: {number}".encode()) is not None


def upstream_head_shapes(proxy: Proxy, number: int) -> None:
    (wire,) = (it for it in _transports(proxy.server) if isinstance(it, WireTransport))
    parts = wire._parts or wire._made()
    origin = parts.connections.origin("a", 80, tls=False)
    heads = parts.heads_of(origin) if origin.heads is None else origin.heads
    for part in range(5):  # as few are kept, none would be seen just after it was the first
        assert heads.read(f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-{number}-{part}: 1".encode()) is not None


def written_headers(proxy: Proxy, number: int) -> None:
    proxy.server._maker._heads.head(200, [(f"x-{number}", "1")], "", now=0.0)


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("routes", opaque_paths),
        ("hosts", hosts),
        ("heads", usual_heads),
        ("request_lines", request_lines),
        ("header_lines", header_lines),
        ("calls_planned", plans),
        ("models", model_names),
        ("models_picked", picked),
        ("response_headers", upstream_headers),
        ("upstream_header_lines", upstream_header_lines),
        ("upstream_head_shapes", upstream_head_shapes),
        ("header_names", written_headers),
    ],
)
async def test_what_is_remembered_stays_within_its_cap(name: str, ask: Callable[[Proxy, int], None]) -> None:
    it = bound(name)
    async with Proxy(FULL) as proxy:
        ask(proxy, 0)  # some are made when they are first asked for
        cap = it.cap(proxy.server)
        largest = 0.0
        for number in range(int(cap) + 300):
            ask(proxy, number)
            largest = max(largest, it.size(proxy.server)) if number % 16 == 0 else largest
        last = it.size(proxy.server)

    assert cap / 3 < largest <= cap  # it is this one that was filled
    assert last <= cap


async def test_what_is_refused_is_not_remembered() -> None:
    async with Proxy(FULL) as proxy:
        for number in range(100):
            with pytest.raises(BadRequest):
                hosts_of(proxy, f"h {number}")

        assert bound("hosts").size(proxy.server) == 0


def hosts_of(proxy: Proxy, host: str) -> None:
    proxy.server._front.edges[0].door._hosts.is_ours(host)
