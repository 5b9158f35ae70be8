"""The tables. Invariants are constraints first, code second."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    DateTime,
    Index,
    Integer,
    MetaData,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Table(DeclarativeBase):
    """A table; every time is an aware instant, every enum a word."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {  # noqa: RUF012 -- SQLAlchemy's own way of declaring it
        datetime: DateTime(timezone=True),
        str: Text(),
        tuple[int, ...]: ARRAY(Integer, as_tuple=True),
        dict[str, Any]: JSONB(),
    }


class SpentTicket(Table):
    """A sign-out ticket that was used; kept for as long as a registration that names it may still be under way."""

    __tablename__ = "spent_tickets"
    __table_args__ = (Index("ix_spent_tickets_expires_at", "expires_at"),)

    installation_id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    expires_at: Mapped[datetime]
