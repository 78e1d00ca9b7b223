"""JSON at the door: what is refused, what is kept, and changes that touch nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from llmproxy_core.errors import BadRequest
from llmproxy_core.jsontext import Limits, members, read_object, remove_member, scan, set_member

MILLION = 1_000_000


def deep(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """An object with that many levels in all."""
    return b'{"a":' + opening * (levels - 1) + closing * (levels - 1) + b"}"


def deep_objects(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


HOSTILE: list[tuple[str, bytes, str, str]] = [
    # name, body, code, a part of the message that says where
    ("empty", b"", "invalid_json", "byte 0"),
    ("whitespace_only", b" \r\n\t", "invalid_json", "byte 4"),
    ("truncated_in_a_value", b'{"a":[1,', "invalid_json", "byte 8"),
    ("truncated_in_a_string", b'{"a":"x', "invalid_json", "byte 7"),
    ("truncated_before_the_end", b'{"a":1', "invalid_json", "byte 6"),
    ("truncated_in_a_word", b'{"a":tru', "invalid_json", "byte"),
    ("array", b"[1]", "invalid_json", "object"),
    ("string", b'"{}"', "invalid_json", "object"),
    ("number", b"1", "invalid_json", "object"),
    ("null", b"null", "invalid_json", "object"),
    ("trailing_garbage", b'{"a":1} x', "invalid_json", "trailing characters"),
    ("two_objects", b"{}{}", "invalid_json", "trailing characters"),
    ("trailing_comma", b'{"a":1,}', "invalid_json", "byte 7"),
    ("comment", b'{/**/"a":1}', "invalid_json", "byte 1"),
    ("single_quotes", b"{'a':1}", "invalid_json", "byte 1"),
    ("key_without_quotes", b"{a:1}", "invalid_json", "byte 1"),
    ("form_feed", b"{\x0c}", "invalid_json", "byte 1"),
    ("nan", b'{"a":NaN}', "invalid_json", "byte 5"),
    ("infinity", b'{"a":Infinity}', "invalid_json", "byte 5"),
    ("minus_infinity", b'{"a":[-Infinity]}', "invalid_json", "byte 7"),
    ("overflow", b'{"a":1e999}', "invalid_json", "'a'"),
    ("overflow_negative", b'{"b":0,"a":-1e999}', "invalid_json", "'a'"),
    ("overflow_nested", b'{"a":{"b":[1E+400]}}', "invalid_json", "'a'"),
    ("overflow_just", b'{"a":1.7976931348623159e308}', "invalid_json", "'a'"),
    # 64 digits before an exponent of three: the smallest exponent that overflows.
    ("overflow_by_digits", b'{"a":' + b"9" * 64 + b"e245}", "invalid_json", "'a'"),
    ("overflow_zeros", b'{"a":1e000000999}', "invalid_json", "'a'"),
    ("digits", b'{"a":' + b"1" * 65 + b"}", "json_too_complex", "'a'"),
    ("digits_negative", b'{"a":-' + b"1" * 65 + b"}", "json_too_complex", "'a'"),
    ("digits_fraction", b'{"a":[0.' + b"1" * 65 + b"]}", "json_too_complex", "'a'"),
    ("digits_exponent", b'{"a":1e-' + b"0" * 65 + b"}", "json_too_complex", "'a'"),
    ("digits_million", b'{"s":"1","a":{"b":' + b"9" * MILLION + b"}}", "json_too_complex", "'a'"),
    ("digits_million_fraction", b'{"a":0.' + b"9" * MILLION + b"}", "json_too_complex", "'a'"),
    ("exponent_million", b'{"a":1e' + b"9" * MILLION + b"}", "json_too_complex", "'a'"),
    ("leading_zero", b'{"a":01}', "invalid_json", "byte 6"),
    ("plus", b'{"a":+1}', "invalid_json", "byte 5"),
    ("no_fraction", b'{"a":1.}', "invalid_json", "byte 7"),
    ("hexadecimal", b'{"a":0x10}', "invalid_json", "byte 6"),
    ("depth_65", deep(65), "json_too_complex", "'a'"),
    ("depth_65_objects", deep_objects(65), "json_too_complex", "'a'"),
    ("depth_65_mixed", b'{"a":' + b'[{"b":' * 32 + b"1" + b"}]" * 32 + b"}", "json_too_complex", "'a'"),
    ("depth_100k", deep(100_000), "json_too_complex", "deep"),
    ("depth_100k_objects", deep_objects(90_000), "json_too_complex", "deep"),
    ("depth_million", deep(MILLION), "json_too_complex", "values"),
    ("depth_in_a_large_member", b'{"b":"' + b"x" * 70_000 + b'",' + deep(65)[1:], "json_too_complex", "'a'"),
    ("depth_beside_much", b'{"a":["' + b"x" * 70_000 + b'",' + deep(64)[5:-1] + b"]}", "json_too_complex", "'a'"),
    ("depth_1000_of_a_duplicate", b'{"a":{"b":' + deep(2000)[5:-1] + b',"b":1}}', "json_too_complex", "deep"),
    ("nodes", b'{"a":[' + b"1," * 100_000 + b"1]}", "json_too_complex", "100000 values"),
    ("nodes_empty_strings", b'{"a":["' + b'","' * MILLION + b'"]}', "json_too_complex", "100000 values"),
    ("nodes_backslashes", b'{"a":["' + rb'\\","' * MILLION + b'"]}', "json_too_complex", "100000 values"),
    ("nodes_empty_arrays", b'{"a":[' + b"[]," * MILLION + b"1]}", "json_too_complex", "100000 values"),
    (
        "nodes_top_level",
        b"{" + b",".join(b'"%d":1' % number for number in range(200_000)) + b"}",
        "json_too_complex",
        "100000 values",
    ),
    ("duplicate", b'{"model":"a","model":"b"}', "duplicate_member", "'model'"),
    ("duplicate_equal", b'{"model":1,"x":2,"model":1}', "duplicate_member", "'model'"),
    ("duplicate_escaped", rb'{"model":"a","mod\u0065l":"b"}', "duplicate_member", "'model'"),
    ("duplicate_escaped_twice", rb'{"\u006dodel":"a","mod\u0065l":"b"}', "duplicate_member", "'model'"),
    ("duplicate_escaped_pair", '{"🦊":1,"\\ud83e\\udd8a":2}'.encode(), "duplicate_member", r"'\U0001f98a'"),
    ("duplicate_slash", rb'{"a/b":1,"a\/b":2}', "duplicate_member", "'a/b'"),
    ("duplicate_empty", b'{"":1,"":2}', "duplicate_member", "''"),
    ("duplicate_many", b"{" + b'"a":1,' * 16_000 + b'"b":1}', "duplicate_member", "'a'"),
    ("duplicate_long", b'{"%b":1,"%b":2}' % ((b"x" * 1000,) * 2), "duplicate_member", r"xx\u2026'"),
    ("surrogate_high", rb'{"a":"\ud800"}', "invalid_json", "byte 6"),
    ("surrogate_high_upper_case", rb'{"a":"\uD8AB"}', "invalid_json", "byte 6"),
    ("surrogate_high_then_text", rb'{"a":"\ud800 and more"}', "invalid_json", "byte"),
    ("surrogate_low", rb'{"a":"\udc00"}', "invalid_json", "byte"),
    ("surrogate_two_high", rb'{"a":"\ud83d\ud83d"}', "invalid_json", "byte"),
    ("surrogates_swapped", rb'{"a":"\ude00\ud83d"}', "invalid_json", "byte"),
    ("surrogate_in_a_key", rb'{"\ud800":1}', "invalid_json", "byte"),
    ("surrogate_in_a_nested_key", rb'{"a":[{"\ud800":1}]}', "invalid_json", "byte"),
    ("surrogate_as_utf8", b'{"a":"\xed\xa0\x80"}', "invalid_encoding", "byte 6"),
    ("bad_escape", rb'{"a":"\x41"}', "invalid_json", "byte"),
    ("bad_unicode_escape", rb'{"a":"\u12g4"}', "invalid_json", "byte"),
    ("newline_in_a_string", b'{"a":"\n"}', "invalid_json", "byte 6"),
    ("nul_in_a_string", b'{"a":"b\0"}', "invalid_json", "byte 7"),
    ("control_in_a_key", b'{"\x1f":1}', "invalid_json", "byte 2"),
    ("bom", b'\xef\xbb\xbf{"a":1}', "invalid_encoding", "byte order mark"),
    ("utf16", '{"a":1}'.encode("utf-16"), "invalid_encoding", "byte 0"),
    ("utf16_le", '{"a":1}'.encode("utf-16-le"), "invalid_encoding", "UTF-16"),
    ("utf16_be", '{"a":1}'.encode("utf-16-be"), "invalid_encoding", "UTF-16"),
    ("utf32_be", '{"a":1}'.encode("utf-32-be"), "invalid_encoding", "UTF-32"),
    ("latin1", '{"a":"é"}'.encode("latin-1"), "invalid_encoding", "byte 6"),
    ("overlong", b'{"a":"\xc0\xaf"}', "invalid_encoding", "byte 6"),
    ("overlong_in_a_key", b'{"\xe0\x80\xaf":1}', "invalid_encoding", "byte 2"),
    ("latin1_in_much", b'{"a":"' + b"x" * 70_000 + b"\xe9" + b'"}', "invalid_encoding", "byte 70006"),
    ("latin1_in_a_key_beside_much", b'{"a":["' + b"x" * 70_000 + b'",{"\xe9":1}]}', "invalid_encoding", "byte 70011"),
    ("bom_before_much", b'\xef\xbb\xbf{"a":"' + b"x" * 70_000 + b'"}', "invalid_encoding", "byte order mark"),
    ("above_unicode", b'{"a":{"b":"\xf4\x90\x80\x80"}}', "invalid_encoding", "byte 11"),
    ("cut_utf8", b'{"a":"\xf0\x9f\xa6"}', "invalid_encoding", "byte 6"),
    ("utf7", b'+AHs-"a":1+AH0-', "invalid_json", "byte 0"),
    ("gzip", b"\x1f\x8b\x08\x00\x00\x00", "invalid_encoding", "byte 1"),
]


@pytest.mark.parametrize(("body", "code", "place"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_hostile_bodies_are_refused_with_a_place_at_once(body: bytes, code: str, place: str) -> None:
    started = time.process_time()

    with pytest.raises(BadRequest) as caught:
        scan(body)

    # "Well under a second", with room for a machine of a tenth of the speed.
    assert time.process_time() - started < 1
    assert (caught.value.status, caught.value.code) == (400, code)
    assert place in caught.value.message
    assert len(caught.value.message) < 200


def test_brackets_that_nothing_closes_are_refused() -> None:
    """Which of the two is said depends on how deep the interpreter goes."""
    with pytest.raises(BadRequest, match=r"nested too deep|ends too early") as caught:
        scan(b'{"a":' + b"[" * 90_000)

    assert caught.value.status == 400


HARMLESS = [
    ("empty_object", b"{}"),
    ("whitespace", b' \r\n\t{ "a" : [ 1 , 2 ] , "b" : { } } \n'),
    ("minus_zero", b'{"a":-0,"b":-0.0}'),
    ("tiny", b'{"a":1e-999,"b":1E-400}'),
    ("largest", b'{"a":1.7976931348623157e308,"b":-1.7976931348623157E+308}'),
    ("zero_with_a_great_exponent", b'{"a":0e999}'),
    ("exponent_in_a_string", b'{"a":"1e999 is 0e000"}'),
    ("digits_64", b'{"a":' + b"9" * 64 + b"}"),
    ("digits_64_thrice", b'{"a":-%b.%be-%b}' % (b"9" * 64, b"9" * 64, b"0" * 63 + b"9")),
    ("exponent_with_plus", b'{"a":1e+' + b"0" * 64 + b"}"),
    ("digits_in_a_string", b'{"a":"' + b"1" * MILLION + b'"}'),
    ("digits_after_an_escaped_quote", rb'{"a":"x\"' + b"1" * 65 + rb'","b":"\\"}'),
    ("digits_after_a_backslash", rb'{"a":["\\","' + b"1" * 65 + rb'"]}'),
    ("digits_before_an_escaped_quote", rb'{"a":["' + b"1" * 65 + rb'\\\" ",2]}'),
    ("depth_64", deep(64)),
    ("depth_64_objects", deep_objects(64)),
    ("brackets_in_a_string", b'{"a":"' + b"[{" * MILLION + b'"}'),
    ("brackets_in_strings_of_a_list", b'{"a":[{"b":"' + b"[{" * 1000 + b'"},"' + b"[{" * 1000 + b'"]}'),
    ("brackets_side_by_side", b'{"a":[' + b"[{}]," * 1000 + b"[]]}"),
    ("brackets_side_by_side_in_much", b'{"a":[' + b"[{}]," * 20_000 + b"[]]}"),
    ("long_text", b'{"a":"' + b"x" * 3 * MILLION + b'"}'),
    ("commas_in_a_string", b'{"a":"' + rb",\",\\," * 100_000 + b'"}'),
    ("nodes", b'{"a":[' + b"1," * 99_990 + b"1]}"),
    ("duplicates_nested", b'{"a":{"b":1,"b":2},"c":[{"b":1,"b":1}]}'),
    ("duplicates_nested_of_which_the_last_counts", b'{"a":[{"b":' + deep(99)[5:-1] + b',"b":1}]}'),
    ("same_name_on_two_levels", b'{"a":{"a":{"a":1}}}'),
    ("names_by_case", b'{"Model":1,"model":2}'),
    ("names_by_normal_form", '{"é":1,"e\u0301":2}'.encode()),
    ("surrogate_pair", rb'{"a":"\ud83e\udd8a","\uD83E\uDD8A":1}'),
    ("no_surrogate", rb'{"a":"\\ud800 \\\\udc00"}'),
    ("escapes", rb'{"a":"\"\\\/\b\f\n\r\t\u0000\u20ac"}'),
    ("delete_character", b'{"a":"\x7f"}'),
    ("utf8", '{"ключ":"żółć 🦊 \U0010ffff\ufeff"}'.encode()),
    ("key_like_a_member", rb'{"a\":1,\"b":2,"b":3}'),
]


@pytest.mark.parametrize("body", [row[1] for row in HARMLESS], ids=[row[0] for row in HARMLESS])
def test_unusual_but_right_bodies_are_read_as_any_parser_reads_them(body: bytes) -> None:
    expected = json.loads(body)

    assert read_object(body) == expected
    assert {name: scan(body).get(name) for name in expected} == expected


@pytest.mark.parametrize("before", range(32))
@pytest.mark.parametrize("filler", [b'"xxxxxxx"', b"12345678"], ids=["text", "numbers"])
def test_a_long_number_is_found_anywhere_in_a_long_body(filler: bytes, before: int) -> None:
    # Of a long body only every 32nd byte is looked at, of one full of numbers every eighth.
    text = b'{"a":"' + b"x" * before + b'","b":[' + b",".join([filler] * 30_000) + b'],"c":%b}'

    assert scan(text % (b"1" * 64)).get("c") == int("1" * 64)
    with pytest.raises(BadRequest, match="'c' has more than 64 digits"):
        scan(text % (b"1" * 65))


def test_the_limits_can_be_set() -> None:
    limits = Limits(max_depth=2, max_nodes=5, max_number_digits=3)

    assert read_object(b'{"a":[1,234,0]}', limits) == {"a": [1, 234, 0]}
    for body in (b'{"a":[[]]}', b'{"a":[1,2,3,4]}', b'{"a":1234}'):
        with pytest.raises(BadRequest) as caught:
            scan(body, limits)
        assert caught.value.code == "json_too_complex"


def test_only_top_level_values_may_be_allowed() -> None:
    with pytest.raises(BadRequest, match="nested deeper than 1 levels"):
        scan(b'{"a":{}}', Limits(max_depth=1))
    assert read_object(b'{"a":"[["}', Limits(max_depth=1)) == {"a": "[["}


# Above 200 digits, a number could overflow without an exponent that the scan looks for.
@pytest.mark.parametrize("wrong", [{"max_depth": 0}, {"max_nodes": 0}, {"max_number_digits": 201}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Limits(**wrong)


# -- laws ----------------------------------------------------------------------------------------------------

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**70), 10**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
# JSON's own tokens in any order: mostly broken, but only just.
TOKENS = [*b'{}[],:"\\-+.eE019 \n\tau', "\\u0061", "\\ud800", "\\udc00", '"a"', '"b":', "null", "1e308", "é", "\ufeff"]
almost_json = st.lists(
    st.sampled_from([chr(token) if isinstance(token, int) else token for token in TOKENS]), max_size=25
).map("".join)


class Duplicate(ValueError):
    pass


def refuse(literal: str) -> None:
    raise ValueError(literal)


def reference(body: bytes, limits: Limits) -> Any:
    """Slow and plain: the same decision by the standard library's parser. ValueError for a refusal."""
    text = body.decode()
    top: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        top[:] = pairs  # the outermost object ends last
        return dict(pairs)

    def number(make: Callable[[str], Any]) -> Callable[[str], Any]:
        def convert(literal: str) -> Any:
            runs = literal.replace("-", " ").replace("+", " ").replace(".", " ").lower().replace("e", " ").split()
            if max(map(len, runs)) > limits.max_number_digits or abs(float(literal)) == float("inf"):
                raise ValueError(literal)
            return make(literal)

        return convert

    value = json.loads(
        text,
        object_pairs_hook=keep,
        parse_int=number(int),
        parse_float=number(float),
        parse_constant=refuse,
    )
    json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError for lone surrogates
    if not isinstance(value, dict) or depth(value) > limits.max_depth:
        raise ValueError("no object, or too deep")
    if len(dict(top)) < len(top):
        raise Duplicate
    return value


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def decide(read: Callable[[bytes, Limits], Any], body: bytes, limits: Limits) -> Any:
    try:
        return read(body, limits)
    except (BadRequest, ValueError):
        return "refused"


TIGHT = Limits(max_depth=3, max_nodes=1000, max_number_digits=3)


@given(almost_json.map(lambda text: "{" + text + "}") | almost_json, st.sampled_from([TIGHT, Limits()]))
@example('{"a":0e999}', Limits())
@example('{"\\u0061":1,"a":2}', Limits())
@example('{"a":"\\\\ud800"}', Limits())
def test_the_decision_is_that_of_the_plain_reference(text: str, limits: Limits) -> None:
    body = text.encode()

    assert decide(read_object, body, limits) == decide(reference, body, limits)


@pytest.mark.repeats
@given(st.dictionaries(st.text(max_size=5), json_values), st.booleans(), st.sampled_from([TIGHT, Limits()]))
def test_the_decision_on_right_json_is_that_of_the_plain_reference(
    value: dict[str, Any], ascii_only: bool, limits: Limits
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()

    assert decide(read_object, body, limits) == decide(reference, body, limits)


CODES = {"invalid_json", "invalid_encoding", "duplicate_member", "json_too_complex"}


@given(st.binary() | almost_json.map(str.encode) | st.binary().map(lambda noise: b'{"a":"' + noise + b'"}'))
def test_any_bytes_are_an_object_or_a_bad_request(body: bytes) -> None:
    for read in (scan, members):
        try:
            read(body)
        except BadRequest as error:
            assert error.code in CODES  # noqa: PT017
    try:
        value = read_object(body)
    except BadRequest:
        return
    assert isinstance(value, dict)


# -- splicing ------------------------------------------------------------------------------------------------

whitespace = st.text(alphabet=" \t\r\n", max_size=2)


def written(name: str, escaped: bool) -> str:
    """A name as JSON, each character as an escape if wanted."""
    if not escaped:
        return json.dumps(name, ensure_ascii=False)
    units = name.encode("utf-16-be").hex()
    return '"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"'


names = st.sampled_from(["model", "stream", "a", "", '"', "\\", "1", "é", "🦊", "{", "}", ":", ",", '","a":'])
# Literals whose bytes may also stand in keys, and around which it is easy to be off by one.
literals = st.sampled_from(
    [
        "1",
        "-0",
        "12345678901234567890123",
        "1.50",
        '"a"',
        '"\\""',
        '"}"',
        "[]",
        "{}",
        '{"a":1,"a":2}',
        "[1, [2]]",
        "null",
    ]
)


class Written:
    """A body in parts: what comes before each member, the member's name and value, and the end."""

    def __init__(self, parts: list[tuple[str, str, str, str]], end: str) -> None:
        self.parts = parts  # gap with its comma or brace, key, colon, value
        self.end = end
        self.body = ("".join("".join(part) for part in parts) + end).encode()


@st.composite
def bodies(draw: st.DrawFn) -> Written:
    chosen = draw(st.lists(names, unique=True, max_size=5))
    parts = []
    for number, name in enumerate(chosen):
        gap = draw(whitespace) + (",{"[number == 0]) + draw(whitespace)
        colon = draw(whitespace) + ":" + draw(whitespace)
        parts.append((gap, written(name, draw(st.booleans())), colon, draw(literals)))
    end = draw(whitespace) + "}" + draw(whitespace)
    return Written(parts, end if parts else draw(whitespace) + "{" + end)


@given(bodies())
def test_the_spans_are_where_each_member_stands(source: Written) -> None:
    spans = members(source.body)

    found = [
        (source.body[span.start : span.value_start].decode(), source.body[span.value_start : span.end].decode())
        for span in spans.values()
    ]
    assert found == [(key + colon, value) for _, key, colon, value in source.parts]
    assert list(spans) == [json.loads(key) for _, key, _, _ in source.parts]


@given(bodies(), names, literals)
def test_setting_a_member_changes_its_value_and_no_other_byte(source: Written, name: str, value: str) -> None:
    result = set_member(source.body, name, value.encode())

    expected = json.loads(source.body) | {name: json.loads(value)}
    assert json.loads(result) == expected
    assert list(json.loads(result)) == list(expected)
    if name in members(source.body):
        parts = [(gap, key, colon, value if json.loads(key) == name else old) for gap, key, colon, old in source.parts]
        assert result == Written(parts, source.end).body
    else:
        last = members(source.body).values()
        at = max((span.end for span in last), default=source.body.index(b"{") + 1)
        assert result.startswith(source.body[:at])
        assert result.endswith(source.body[at:])


@given(bodies(), names)
def test_removing_a_member_keeps_every_other_byte_but_one_comma(source: Written, name: str) -> None:
    result = remove_member(source.body, name)

    expected = json.loads(source.body)
    expected.pop(name, None)
    assert json.loads(result) == expected
    assert list(json.loads(result)) == list(expected)
    kept = [part[1:] for part in source.parts if json.loads(part[1]) != name]
    position = 0
    for part in kept:  # each member's own bytes, in their order
        position = result.index("".join(part).encode(), position)
    if len(kept) == len(source.parts):
        assert result == source.body


@given(bodies(), st.dictionaries(names, st.none() | literals))
def test_a_splice_does_many_edits_as_one_after_the_other_does(source: Written, edits: dict[str, str | None]) -> None:
    raw = {name: None if value is None else value.encode() for name, value in edits.items()}

    result = scan(source.body).splice(raw)

    expected = json.loads(source.body)
    for name, value in edits.items():
        if value is None:
            expected.pop(name, None)
        else:
            expected[name] = json.loads(value)
    assert json.loads(result) == expected
    assert scan(result).raws.keys() == expected.keys()


@pytest.mark.parametrize(
    ("body", "edits", "expected"),
    [
        (b"{}", {"a": b"1"}, b'{"a":1}'),
        (b" { } ", {"a": b"1", "b": b"2"}, b' {"a":1,"b":2 } '),
        (b'{"a":1}', {"b": b"2"}, b'{"a":1,"b":2}'),
        (b'{ "a" : 1 }', {"a": b"2"}, b'{ "a" : 2 }'),
        (rb'{"mod\u0065l":"x", "n":1}', {"model": b'"y"'}, rb'{"mod\u0065l":"y", "n":1}'),
        (b'{ "a":1, "b":2, "c":3 }', {"a": None}, b'{ "b":2, "c":3 }'),
        (b'{ "a":1, "b":2, "c":3 }', {"b": None}, b'{ "a":1, "c":3 }'),
        (b'{ "a":1, "b":2, "c":3 }', {"c": None}, b'{ "a":1, "b":2 }'),
        (b'{ "a":1, "b":2, "c":3 }', {"a": None, "b": None, "c": None}, b"{  }"),
        (b'{ "a":1, "b":2 }', {"a": None, "b": None, "c": b"3"}, b'{ "c":3 }'),
        (b'{"a":1,"b":2}', {"b": None, "c": b"3", "a": b"0"}, b'{"a":0,"c":3}'),
        (b'{"a":1}', {"x": None}, b'{"a":1}'),
        (b'{"1":1,"a":12345678901234567890.50}', {"1": b"2"}, b'{"1":2,"a":12345678901234567890.50}'),
    ],
)
def test_what_a_splice_writes(body: bytes, edits: dict[str, bytes | None], expected: bytes) -> None:
    assert scan(body).splice(edits) == expected


def test_members_of_a_body_that_names_one_twice_are_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        members(b'{"a":1,"a":1}')

    assert caught.value.code == "duplicate_member"


def test_a_name_that_is_not_utf8_is_refused_without_the_scan_too() -> None:
    with pytest.raises(BadRequest) as caught:
        set_member(b'{"\xff":1}', "a", b"1")

    assert caught.value.code == "invalid_encoding"


def test_members_are_kept_as_written_until_asked_for() -> None:
    top = scan(b'{"seed": 12345678901234567890123 , "t":0.10}')

    assert {name: bytes(raw) for name, raw in top.raws.items()} == {
        "seed": b"12345678901234567890123",
        "t": b"0.10",
    }
    assert top.get("t") == 0.1
    assert top.get("model") is None
    assert top.get("model", "x") == "x"
    assert type(next(iter(top.raws))) is str  # a plain name, equal to other plain names


def test_a_message_echoes_no_value() -> None:
    for body in (b'{"key":"hunter2","a":1e999}', b'{"key":"hunter2"', b'{"key":"hunter2","a":NaN}', b'"hunter2"'):
        with pytest.raises(BadRequest) as caught:
            scan(body)
        assert "hunter2" not in caught.value.message


@pytest.mark.repeats
@given(st.dictionaries(st.text(max_size=5), json_values))
def test_a_body_without_edits_is_the_same_bytes(value: dict[str, Any]) -> None:
    body = msgspec.json.encode(value)
    assume(decide(read_object, body, Limits()) != "refused")

    assert scan(body).splice({}) == body


@pytest.mark.parametrize("length", [10, 100_000], ids=["short", "long"])
def test_what_was_read_ahead_is_found_once(length: int) -> None:
    body = b'{"model":"m","text":"' + b"x" * length + b'"}'

    ahead = scan(body, ahead=True)

    assert scan(body) is ahead
    assert scan(body) is not ahead


def test_what_was_read_ahead_is_not_found_for_an_equal_body() -> None:
    body = b'{"model":"m"}'
    ahead = scan(body, ahead=True)

    assert scan(bytes(bytearray(body))) is not ahead


SPACED = [
    ("as dumped", b'{"a": 1, "b": "x, y"}', True),
    ("one member", b'{"a": 1}', True),
    ("no text but ASCII", '{"é": 1, "b": "ü"}'.encode(), True),
    ("an escape in a name", rb'{"\u0061": 1, "b": 2}', True),
    ("elsewhere spaced", b'{ "a":1 ,"b":2 }', True),
    ("as many bytes in another member", b'{"x":1,"bb":2,"x":12,"ccc":3}', False),
    ("dumped twice", b'{"a": 1, "b": 2, "a": 1}', False),
    ("twice in as many bytes as the spaces", b'{"a":1,"b":2,"c":3,"a":1}', False),
]


@pytest.mark.parametrize(("body", "is_good"), [row[1:] for row in SPACED], ids=[row[0] for row in SPACED])
def test_spaces_hide_no_second_member_of_a_name(body: bytes, is_good: bool) -> None:
    if is_good:
        assert {name: scan(body).get(name) for name in scan(body).names} == json.loads(body)
    else:
        with pytest.raises(BadRequest) as refused:
            scan(body)
        assert refused.value.code == "duplicate_member"


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "é", ""]), st.integers(0, 1000)), max_size=5),
    st.sampled_from([",", ", ", " ,"]),
    st.sampled_from([":", ": "]),
)
def test_a_name_is_found_twice_however_the_body_is_spaced(pairs: list[tuple[str, int]], comma: str, colon: str) -> None:
    body = ("{" + comma.join(f'"{name}"{colon}{value}' for name, value in pairs) + "}").encode()

    if len(dict(pairs)) == len(pairs):
        assert {name: scan(body).get(name) for name in scan(body).names} == dict(pairs)
    else:
        with pytest.raises(BadRequest) as refused:
            scan(body)
        assert refused.value.code == "duplicate_member"
