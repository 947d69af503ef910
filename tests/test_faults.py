"""
Every fault has a test, and every test that names a fault names one that is known.

The tests themselves stand by subject: `test_faults_connecting`, `test_faults_answers`, `test_faults_refusals`,
`test_faults_readings`; and among what else is to be said of falling back in `test_fallback`, of quota endpoints in `test_polling`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_names import FAULTS

FILES = sorted(Path(__file__).parent.glob("test_*.py"))
_IN_NAME = re.compile(r"test_f(\d{2})_")
_IN_ID = re.compile(r"F\d{1,2}(?= )")


def named(text: str) -> Iterator[str]:
    """The faults that the ids of a file's tests name."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if found := _IN_NAME.match(name):
                yield f"F{int(found[1])}"
            case ast.Dict(keys=keys):
                yield from (found[0] for key in keys if (found := _head_of(key)))
            case ast.keyword(arg="id", value=value) if found := _head_of(value):
                yield found[0]


def _head_of(node: ast.expr | None) -> re.Match[str] | None:
    return _IN_ID.match(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_every_fault_has_a_test_and_every_test_a_fault_that_is_known():
    assert {fault for file in FILES for fault in named(file.read_text())} == set(FAULTS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("async def test_f07_a_body_breaks(): ...", ["F7"]),
        ("def test_f99_nobody_knows(): ...", ["F99"]),
        ("STEPS = {'F6 reset': 1, 'other': 2, **MORE}", ["F6"]),
        ("pytest.param(1, id='F17 giant line')", ["F17"]),
        ("def test_a_fallback(): ...", []),
        ('"""Of F3 a text speaks."""', []),
    ],
)
def test_only_what_becomes_part_of_an_id_counts(text, found):
    assert list(named(text)) == found
