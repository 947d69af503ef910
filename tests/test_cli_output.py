"""What people read in a terminal of any width."""

import pytest

from quota_router.cli.output import print_table

COLUMNS = ("provider", "window", ">used", ">cost", "resets")
ROWS = (
    ("a-provider-with-a-long-name", "tokens of five hours", "1,234,567", "$0.0005605", "2026-11-25 23:00:00"),
    ("short", "-", "", "-$0.0094395", "-"),
)
FOOTER = ("total", "", "1,234,567", "-$0.008879", "")
WORDS = [cell for row in (*ROWS, FOOTER) for cell in row if cell not in {"", "-"}]


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_no_width_cuts_an_amount_or_breaks_a_name(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    print_table("Usage", COLUMNS, ROWS, footer=FOOTER)
    said = capsys.readouterr().out
    assert [word for word in WORDS if word not in said] == []
    if width >= 60:
        assert max(map(len, said.splitlines())) <= width


def test_a_page_that_is_too_narrow_gets_a_block_for_each_row(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    print_table("Usage", COLUMNS, ROWS, footer=FOOTER)
    assert capsys.readouterr().out.splitlines() == [
        "Usage",
        "",
        "  a-provider-with-a-long-name",
        "    window tokens of five hours   used 1,234,567",
        "    cost $0.0005605   resets 2026-11-25 23:00:00",
        "",
        "  short",
        "    cost -$0.0094395",
        "",
        "  total",
        "    used 1,234,567   cost -$0.008879",
        "",
    ]


def test_where_nobody_says_how_wide_the_page_is_a_row_is_one_line(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = tuple(f"column-{number}-{'x' * 20}" for number in range(12))
    print_table("Wide", wide, [wide])
    assert any(all(name in line for name in wide) for line in capsys.readouterr().out.splitlines())
