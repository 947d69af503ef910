"""What was asked for: each row has tests that are named after it, and a line in the README; what is open is named as open."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROWS = (
    *("0.1", "0.2", "0.3", "0.4", "0.5"),
    *("1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7", "1.8", "1.9"),
    *("2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "2.8"),
    *("3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7", "3.8", "3.9"),
    *("4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "4.7", "4.8"),
)
OPEN = {"2.8": "the page", "4.8": "translation between the dialects"}
SUBJECTS = {
    "fallover": r"test_a_fault_of_the_first_rung_is_answered_by_the_second",
    "short-circuit": r"test_the_callers_own_mistake_comes_back_byte_for_byte",
    "exhaustion": r"test_row_1_9_when_all_are_out_of_quota",
    "cooldown": r"test_row_1_5_",
    "error classification": r"test_a_recorded_failure_means_what_its_file_says",
    "pool resolution": r"test_row_1_1_",
    "policy validation": r"test_row_1_2_",
    "create with and without attachments": r"test_row_2_2_",
    "cross-family, duplicates, reorder, null update": r"test_row_2_4_",
    "resolve table": r"test_any_mixture_of_reasons_has_the_status_of_the_table",
    "cache epochs and cascading invalidation": r"test_row_2_7_",
    "routers one by one": r"test_row_4_2_",
}
"""Which the five systems name (row T.1), but for the units of a form, which come with the page."""


def names_of_tests() -> list[str]:
    """Every test there is."""
    defined = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
    return [name for file in TESTS.glob("test_*.py") for name in defined.findall(file.read_text())]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_tests_that_are_named_after_it_or_is_open(row):
    found = [name for name in names_of_tests() if name.startswith(f"test_row_{row.replace('.', '_')}_")]
    assert bool(found) is (row not in OPEN)


def test_no_test_is_named_after_a_row_that_nobody_asked_for():
    asked = {row.replace(".", "_") for row in ROWS}
    ahead = re.compile(r"7_\d+")
    named = {found[1] for name in names_of_tests() if (found := re.match(r"test_row_(\d+_\d+)_", name))}
    assert {row for row in named if not ahead.fullmatch(row)} <= asked


@pytest.mark.parametrize("subject", SUBJECTS)
def test_row_t_1_what_the_five_systems_test_is_tested(subject):
    assert any(re.match(SUBJECTS[subject], name) for name in names_of_tests())


@pytest.mark.parametrize("row", ROWS)
def test_the_readme_tells_what_became_of_a_row(row):
    (line,) = re.findall(rf"^\| {re.escape(row)} \| (.+) \|$", (TESTS.parent / "README.md").read_text(), re.MULTILINE)
    assert ("open" in line) is (row in OPEN)
