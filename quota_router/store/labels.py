"""
Labels in SQL: a JSON list of words in one column, unfolded into rows.

Law: each database unfolds with its own function, here and nowhere else.
"""

from typing import Any

from sqlalchemy import ColumnElement, Table, cast, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.selectable import FromClause


def unfold_labels(table: Table, database: str) -> tuple[FromClause, ColumnElement[Any]]:
    """
    Unfold the labels of *table*'s rows.

    Args:
        table: has a column `labels`.
        database: the dialect's name.

    Returns:
        the rows, one for each label, and their one column.
    """
    if database == "postgresql":
        names = func.jsonb_array_elements_text(cast(table.c.labels, JSONB)).table_valued("value").render_derived(name="names")
    else:
        names = func.json_each(table.c.labels).table_valued("value", name="names")
    return names, names.c.value
