"""The tables, as the newest step of the schema leaves them; a test compares the two on both databases.

Times are seconds since 1970 (UTC). Every name begins with ``autoglm_``, so that a database can be shared.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

PREFIX = "autoglm_"
SCHEMA_TABLE = f"{PREFIX}schema"
METADATA = MetaData(naming_convention={
    "ix": "ix_%(table_name)s_%(column_0_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s"})
_ID = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts up by itself in SQLite


def _version(*, primary_key: bool = False, index: bool = False) -> Column[int]:
    return Column("version_id", _ID, ForeignKey(f"{PREFIX}versions.id", ondelete="CASCADE"), nullable=False,
                  primary_key=primary_key, index=index)


def _model(*, primary_key: bool = False) -> Column[int]:
    return Column("model_id", _ID, ForeignKey(f"{PREFIX}models.id", ondelete="CASCADE"), nullable=False,
                  primary_key=primary_key)


MODELS = Table(
    f"{PREFIX}models", METADATA,
    Column("id", _ID, primary_key=True), Column("name", String(64), nullable=False, unique=True),
    Column("note", Text, nullable=False), Column("created_s", Double, nullable=False),
    Column("next_number", Integer, nullable=False),
    Column("route_revision", Integer, nullable=False), Column("route_since_s", Double, nullable=False))

VERSIONS = Table(
    f"{PREFIX}versions", METADATA,
    Column("id", _ID, primary_key=True), _model(), Column("number", Integer, nullable=False),
    Column("copied", Boolean, nullable=False), Column("location", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False), Column("size_bytes", BigInteger, nullable=False),
    Column("facts", Text, nullable=False), Column("note", Text, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("created_s", Double, nullable=False), Column("created_by", String(96), nullable=False),
    UniqueConstraint("model_id", "number"))

ALIASES = Table(
    f"{PREFIX}aliases", METADATA,
    _model(primary_key=True), Column("alias", String(32), primary_key=True), _version())

SHARES = Table(
    f"{PREFIX}shares", METADATA,
    _model(primary_key=True), _version(primary_key=True), Column("weight", Integer, nullable=False),
    Column("baseline", Boolean, nullable=False), Column("withdrawn", Text, nullable=False))

OUTCOMES = Table(
    f"{PREFIX}outcomes", METADATA,
    _version(primary_key=True), Column("minute", Integer, primary_key=True, autoincrement=False),
    Column("bucket", Integer, primary_key=True, autoincrement=False), Column("count", BigInteger, nullable=False),
    Index(f"ix_{PREFIX}outcomes_minute", "minute"))

WISHES = Table(
    f"{PREFIX}wishes", METADATA,
    _version(primary_key=True), Column("loaded", Boolean, nullable=False), Column("pinned", Boolean, nullable=False),
    Column("at_s", Double, nullable=False), Column("by", String(96), nullable=False))

AUDIT = Table(
    f"{PREFIX}audit", METADATA,
    Column("id", _ID, primary_key=True), Column("at_s", Double, nullable=False, index=True),
    Column("by", String(96), nullable=False), Column("action", String(32), nullable=False),
    Column("subject", String(160), nullable=False), Column("detail", Text, nullable=False))

MARKS = Table(
    f"{PREFIX}marks", METADATA,
    Column("name", String(32), primary_key=True), Column("value", BigInteger, nullable=False))

CONVERSATIONS = Table(
    f"{PREFIX}conversations", METADATA,
    Column("owner", String(32), primary_key=True), Column("name", String(64), primary_key=True),
    Column("model", String(160), nullable=False), Column("turns", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False), Column("created_s", Double, nullable=False),
    Column("updated_s", Double, nullable=False), Column("expires_s", Double, nullable=False, index=True))

TURNS = Table(
    f"{PREFIX}turns", METADATA,
    Column("owner", String(32), primary_key=True), Column("name", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False), Column("message", Text, nullable=False),
    ForeignKeyConstraint(["owner", "name"], [f"{PREFIX}conversations.owner", f"{PREFIX}conversations.name"],
                         ondelete="CASCADE"))

RESPONSES = Table(
    f"{PREFIX}responses", METADATA,
    Column("key", String(64), primary_key=True), _version(index=True), Column("body", LargeBinary, nullable=False),
    Column("size_bytes", BigInteger, nullable=False), Column("created_s", Double, nullable=False),
    Column("used_s", Double, nullable=False, index=True))

KEYS = Table(
    f"{PREFIX}keys", METADATA,
    Column("key_id", String(32), primary_key=True), Column("name", String(64), nullable=False),
    Column("hash", String(256), nullable=False), Column("scopes", String(64), nullable=False),
    Column("requests_per_min", Integer), Column("tokens_per_min", Integer),
    Column("created_s", Double, nullable=False), Column("created_by", String(96), nullable=False),
    Column("expires_s", Double), Column("revoked_s", Double), Column("used_s", Double))
