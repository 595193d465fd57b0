"""Run the migrations on the connection that `migrate` opened: Alembic loads this file."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
