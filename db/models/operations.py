"""Tables of operations: workers, leases, cutoffs, support actions, API keys, and sign-ins to our pages."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.table import Table


class WorkerRow(Table):
    """A worker process that was seen lately, with the states of its route limiters."""

    __tablename__ = "workers"

    worker_id: Mapped[UUID] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    seen_at: Mapped[datetime]
    gates: Mapped[dict[str, Any]]
    alive_at: Mapped[datetime | None]  # twice a second; `seen_at` is that of the heartbeat, which divides the rate


class Lease(Table):
    """What only one process does at a time: which one until when, and its findings."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[UUID]
    expires_at: Mapped[datetime]
    found: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class TokenErrorCutoffRow(Table):
    """A token-error cutoff of one route: it deactivates no token and sends nothing until a person resumes it."""

    __tablename__ = "brakes"
    __table_args__ = (
        Index(
            "uq_brakes_engaged",
            "provider",
            text("coalesce(app_id, '')"),
            "environment",
            unique=True,
            postgresql_where=text("resumed_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    provider: Mapped[str]
    app_id: Mapped[str | None]
    environment: Mapped[str]
    reason: Mapped[str]  # the most frequent one
    token_errors: Mapped[int]
    answers: Mapped[int]
    engaged_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    resumed_at: Mapped[datetime | None]
    resumed_by: Mapped[str | None]
    resumed_by_person: Mapped[bool | None]  # None: the release before wrote it


class SupportAction(Table):
    """What a person did to pushes or routes; never updated."""

    __tablename__ = "support_actions"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str] = mapped_column(String(200))
    by_person: Mapped[bool | None]  # False: a service, an API key, a command line; None: the release before wrote it
    action: Mapped[str]  # redrive, resume, test_push, sign_in, sign_out, create_api_key, revoke_api_key
    subject_kind: Mapped[str]  # push_task, brake, test_push, console_session, api_key
    subject_id: Mapped[UUID] = mapped_column(index=True)
    detail: Mapped[dict[str, Any]]


class ApiKeyRow(Table):
    """An API key of a backend; only its digest is stored."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str] = mapped_column(String(200))  # the caller that the key stands for, as `sub` in a JWT
    digest: Mapped[bytes] = mapped_column(unique=True)  # SHA-256
    scopes: Mapped[tuple[str, ...]] = mapped_column(ARRAY(Text, as_tuple=True))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # written at most once a minute


class ConsoleSession(Table):
    """Somebody signed in to the console; of the cookie's value only the digest is stored."""

    __tablename__ = "console_sessions"
    __table_args__ = (Index("ix_console_sessions_expires_at", "expires_at"),)

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[str] = mapped_column(String(200))
    by_person: Mapped[bool | None]  # as in `SupportAction`
    csrf_token: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]


class ConsoleCode(Table):
    """A code that signs somebody in to the console, once; only its digest is stored."""

    __tablename__ = "console_codes"
    __table_args__ = (Index("ix_console_codes_expires_at", "expires_at"),)

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[str] = mapped_column(String(200))
    by_person: Mapped[bool | None]  # as in `SupportAction`
    expires_at: Mapped[datetime]


class PreferenceCode(Table):
    """A link to the preference page, which opens it once; only its code's digest is stored."""

    __tablename__ = "preference_codes"
    __table_args__ = (
        Index("ix_preference_codes_of_user", "user_id", "kind", "created_at"),
        Index("ix_preference_codes_expires_at", "expires_at"),
    )

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str]  # app, email
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]


class PreferenceSession(Table):
    """A browser in which the preference page is open; of the cookie's value only the digest is stored."""

    __tablename__ = "preference_sessions"
    __table_args__ = (
        Index("ix_preference_sessions_of_user", "user_id", "created_at"),
        Index("ix_preference_sessions_expires_at", "expires_at"),
    )

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256
    user_id: Mapped[str] = mapped_column(String(200))
    csrf_token: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]  # extended by visits, up to a limit after `created_at`


class ErasureRow(Table):
    """A person who leaves. While it runs it names them; a trigger on each table keeps new rows about them out."""

    __tablename__ = "erasures"
    __table_args__ = (
        Index("uq_erasures_running", "user_id", unique=True, postgresql_where=text("user_id IS NOT NULL")),
        Index("ix_erasures_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
        CheckConstraint("num_nonnulls(user_id, done_at) = 1", name="done_is_nameless"),
        CheckConstraint("num_nonnulls(next_attempt_at, done_at) = 1", name="done_or_due"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    digest: Mapped[bytes]  # HMAC-SHA256 of the user id
    user_id: Mapped[str | None] = mapped_column(String(200))
    requested_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    next_attempt_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))  # in a row that failed
    done_at: Mapped[datetime | None]


class ErasedSubject(Table):
    """What an erasure deleted that may still have a workflow in Temporal: as in the outbox, a kind and an id."""

    __tablename__ = "erased_subjects"

    erasure_id: Mapped[UUID] = mapped_column(ForeignKey("erasures.id"), primary_key=True)
    subject_kind: Mapped[str] = mapped_column(primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
