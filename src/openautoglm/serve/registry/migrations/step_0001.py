"""The first schema: models, versions, aliases, routes, outcomes, wishes, audit, conversations, responses, keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_P = "autoglm_"
_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make all tables."""
    _models()
    _routes()
    _service()


def _version(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column("version_id", _ID, sa.ForeignKey(f"{_P}versions.id", ondelete="CASCADE"), nullable=False,
                     primary_key=primary_key)


def _model(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column("model_id", _ID, sa.ForeignKey(f"{_P}models.id", ondelete="CASCADE"), nullable=False,
                     primary_key=primary_key)


def _models() -> None:
    op.create_table(
        f"{_P}models",
        sa.Column("id", _ID, primary_key=True), sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("note", sa.Text, nullable=False), sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("next_number", sa.Integer, nullable=False),
        sa.Column("route_revision", sa.Integer, nullable=False),
        sa.Column("route_since_s", sa.Double, nullable=False))
    op.create_table(
        f"{_P}versions",
        sa.Column("id", _ID, primary_key=True), _model(), sa.Column("number", sa.Integer, nullable=False),
        sa.Column("copied", sa.Boolean, nullable=False), sa.Column("location", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("facts", sa.Text, nullable=False), sa.Column("note", sa.Text, nullable=False),
        sa.Column("stage", sa.String(16), nullable=False), sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("created_by", sa.String(96), nullable=False),
        sa.UniqueConstraint("model_id", "number"))
    op.create_table(f"{_P}aliases", _model(primary_key=True), sa.Column("alias", sa.String(32), primary_key=True),
                    _version())


def _routes() -> None:
    op.create_table(
        f"{_P}shares", _model(primary_key=True), _version(primary_key=True),
        sa.Column("weight", sa.Integer, nullable=False), sa.Column("baseline", sa.Boolean, nullable=False),
        sa.Column("withdrawn", sa.Text, nullable=False))
    op.create_table(
        f"{_P}outcomes", _version(primary_key=True),
        sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False))
    op.create_index(f"ix_{_P}outcomes_minute", f"{_P}outcomes", ["minute"])
    op.create_table(
        f"{_P}wishes", _version(primary_key=True), sa.Column("loaded", sa.Boolean, nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False), sa.Column("at_s", sa.Double, nullable=False),
        sa.Column("by", sa.String(96), nullable=False))
    op.create_table(
        f"{_P}audit", sa.Column("id", _ID, primary_key=True),
        sa.Column("at_s", sa.Double, nullable=False, index=True), sa.Column("by", sa.String(96), nullable=False),
        sa.Column("action", sa.String(32), nullable=False), sa.Column("subject", sa.String(160), nullable=False),
        sa.Column("detail", sa.Text, nullable=False))
    op.create_table(f"{_P}marks", sa.Column("name", sa.String(32), primary_key=True),
                    sa.Column("value", sa.BigInteger, nullable=False))


def _service() -> None:
    owner = (sa.Column("owner", sa.String(32), primary_key=True), sa.Column("name", sa.String(64), primary_key=True))
    op.create_table(
        f"{_P}conversations", *owner,
        sa.Column("model", sa.String(160), nullable=False), sa.Column("turns", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False), sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("updated_s", sa.Double, nullable=False),
        sa.Column("expires_s", sa.Double, nullable=False, index=True))
    op.create_table(
        f"{_P}turns",
        sa.Column("owner", sa.String(32), primary_key=True), sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["owner", "name"], [f"{_P}conversations.owner", f"{_P}conversations.name"],
                                ondelete="CASCADE"))
    op.create_table(
        f"{_P}responses", sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("version_id", _ID, sa.ForeignKey(f"{_P}versions.id", ondelete="CASCADE"), nullable=False,
                  index=True),
        sa.Column("body", sa.LargeBinary, nullable=False), sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_s", sa.Double, nullable=False), sa.Column("used_s", sa.Double, nullable=False, index=True))
    op.create_table(
        f"{_P}keys", sa.Column("key_id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False), sa.Column("hash", sa.String(256), nullable=False),
        sa.Column("scopes", sa.String(64), nullable=False), sa.Column("requests_per_min", sa.Integer),
        sa.Column("tokens_per_min", sa.Integer), sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("created_by", sa.String(96), nullable=False), sa.Column("expires_s", sa.Double),
        sa.Column("revoked_s", sa.Double), sa.Column("used_s", sa.Double))
