"""Bodies are read once and keep their bytes."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.dialects.json import read_object
from quota_router.errors import MalformedBody

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["model", "stream"]), VALUES, max_size=5
)
STYLES = st.sampled_from(
    [
        {},
        {"separators": (",", ":")},
        {"indent": 2},
        {"ensure_ascii": False},
        {"separators": (" ,\t", "\r\n:  ")},
    ]
)


@given(document=OBJECTS, style=STYLES, lead=st.sampled_from(["", " \n"]), tail=st.sampled_from(["", "\n\n", " "]))
def test_every_member_is_found_where_it_stands(document, style, lead, tail):
    body = (lead + json.dumps(document, **style) + tail).encode()
    top = read_object(body)
    assert {name: json.loads(top.raw(name)) for name in top.spans} == document


@given(document=OBJECTS, style=STYLES)
def test_replacing_the_model_changes_no_byte_outside_its_value(document, style):
    body = json.dumps(document, **style).encode()
    top = read_object(body)
    replaced = top.replaced({"model": b'"other"'})
    assert json.loads(replaced) == {**document, "model": "other"}
    if "model" in document:
        start, end = top.spans["model"]
        assert replaced == body[:start] + b'"other"' + body[end:]
    else:
        lead, close = body.rstrip()[:-1], body[body.rindex(b"}") :]
        assert replaced.startswith(lead)
        assert replaced.endswith(close)
        assert replaced[len(lead) : -len(close)].lstrip(b",") == b'"model":"other"'


def test_several_members_are_replaced_in_one_go_whatever_their_order():
    top = read_object(b'{"b": [1], "a" :2 }')
    assert top.replaced({"a": b"7", "b": b"8", "c": b"9"}) == b'{"b": 8, "a" :7 ,"c":9}'


def test_a_name_written_with_escapes_is_the_same_name():
    top = read_object(b'{"mod\\u0065l": "m"}')
    assert top.replaced({"model": b'"x"'}) == b'{"mod\\u0065l": "x"}'


MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "array": b"[1]",
    "string": b'"x"',
    "byte order mark": b"\xef\xbb\xbf{}",
    "trailing data": b'{"a":1} {"b":2}',
    "trailing comma": b'{"a":1,}',
    "cut": b'{"a":"b',
    "single quotes": b"{'a':1}",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":[-Infinity]}',
    "invalid UTF-8 in a value": b'{"a":"\xff"}',
    "invalid UTF-8 in a nested name": b'{"a":{"\xc3\x28":1}}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "control character": b'{"a":"\x01"}',
    "lone surrogate": b'{"a":"\\ud800"}',
    "200,000 nested brackets": b'{"a":' + b"[" * 200_000,
    "200,000 balanced brackets": b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "nested objects": b'{"a":' * 100_000,
    "6,000 digits": b'{"a":' + b"9" * 6_000 + b"}",
    "6,000 digits, nested": b'{"m":"x","a":[{"b":[-' + b"1" * 6_000 + b"]}]}",
    "400 digits after the point": b'{"a":0.' + b"3" * 400 + b"}",
    "the same name twice": b'{"model":"a","model":"b"}',
    "the same name and value twice": b'{"a":1,"a":1}',
    "the first a prefix of the last": b'{"a":1,"b":2,"a":12}',
    "the last a prefix of the first": b'{"a":12,"b":2,"a":1}',
    "twice through an escape": b'{"model":"a","mod\\u0065l":"b"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_one_strict_object_is_malformed_and_said_so_quickly(body):
    started = time.perf_counter()
    with pytest.raises(MalformedBody):
        read_object(body)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("offset", range(0, 60, 7))
def test_a_number_of_400_digits_is_found_wherever_it_stands(offset):
    body = b'{"a":"' + b"x" * offset + b'","b":%s}'
    assert read_object(body % (b"1" * 399)).raw("b") == b"1" * 399
    with pytest.raises(MalformedBody):
        read_object(body % (b"1" * 400))


def test_digits_in_a_string_are_text():
    assert read_object(b'{"a":"say \\" ' + b"7" * 6_000 + b'"}').spans.keys() == {"a"}


@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u0a1 \n', max_size=40).map(str.encode))
def test_no_bytes_whatever_raise_anything_else(body):
    try:
        top = read_object(body)
    except MalformedBody:
        return
    assert json.loads(body).keys() == top.spans.keys()
