"""Alembic's entry point: it is given a connection in a transaction and works on that."""

from __future__ import annotations

from alembic import context

from service.tables import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, transactional_ddl=False)
context.run_migrations()
