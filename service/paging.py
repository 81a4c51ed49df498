"""Lists: `after` (an id) and `limit`, newest first. A cursor keeps working after its row is deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from service.database import Scope
from service.errors import invalid
from service.tables import Owned

Row = TypeVar("Row", bound=Owned)


def page(
    scope: Scope,
    table: type[Row],
    after: str | None,
    limit: int,
    *conditions: sa.ColumnElement[bool],
    order: Literal["asc", "desc"] = "desc",
) -> tuple[list[Row], bool]:
    """The rows after a cursor, and whether there are more. Raises ApiError 400 for a cursor that never existed."""
    query = scope.select(table).where(*conditions)
    if after is not None:
        cursor = scope.session.scalar(sa.select(table.seq).where(table.id == after, table.tenant_id == scope.tenant_id))
        if cursor is None:
            raise invalid(f"expected the id of an earlier list's object, found {after[:100]!r}", "after")
        query = query.where(table.seq < cursor if order == "desc" else table.seq > cursor)
    query = query.order_by(table.seq.desc() if order == "desc" else table.seq.asc()).limit(limit + 1)
    rows = list(scope.session.scalars(query))
    return rows[:limit], len(rows) > limit


def listed(rows: Sequence[Row], more: bool, show: Callable[[Row], dict[str, Any]]) -> dict[str, Any]:
    """The list object."""
    data = [show(row) for row in rows]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": more}
