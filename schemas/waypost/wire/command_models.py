"""Command bodies on the wire: one pydantic model each, from which JSON Schema is generated.

Pure. Loading pydantic takes longer than all else that a publisher needs, so what agents import does not import
this.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from waypost.errors import InvalidCommandError
from waypost.model.commands import OnConflict
from waypost.model.limits import (
    MAX_CHECKPOINT_ID,
    MAX_IMPORT_ITEMS,
    MAX_NAME,
    MAX_REASON,
    not_an_object,
    text_problem,
)
from waypost.model.retention import (
    COMPRESS_AFTER_BOUNDS,
    KEEP_RECENT_BOUNDS,
    MAX_AGE_BOUNDS_SECONDS,
    MAX_CHECKPOINTS_BOUNDS,
)
from waypost.model.times import parse_micros
from waypost.wire.event_types import EventType
from waypost.wire.signing import decode_key, decode_record_hash


def _text(longest: int) -> Callable[[str], str]:
    def check(value: str) -> str:
        problem = text_problem(value, longest)
        if problem is not None:
            raise ValueError(problem)
        return value

    return check


Name = Annotated[
    str, Field(json_schema_extra={"minLength": 1, "maxLength": MAX_NAME}), AfterValidator(_text(MAX_NAME))
]
CheckpointId = Annotated[
    str,
    Field(json_schema_extra={"minLength": 1, "maxLength": MAX_CHECKPOINT_ID}),
    AfterValidator(_text(MAX_CHECKPOINT_ID)),
]


def _timestamp(value: str) -> str:
    parse_micros(value)
    return value


Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"}), AfterValidator(_timestamp)]


class Body(BaseModel):
    """Base of all command bodies: unknown fields and loose types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CreateBody(Body):
    """Body of ``waypost.checkpoint.create``."""

    name: Name = Field(description="semantic name such as task_started; names repeat")
    data: dict[str, Any] = Field(description="the agent's working state, any JSON object, up to 900 KB")
    metadata: dict[str, Any] = Field(default={}, description="small searchable JSON object, up to 16 KB")


class CheckpointBody(Body):
    """Body of the commands that concern one checkpoint: pin, unpin, delete."""

    checkpoint_id: CheckpointId = Field(description="an id of this session, or the original id of an import")


class ClearBody(Body):
    """Body of ``waypost.session.clear``: an empty object."""


class RollbackBody(Body):
    """Body of ``waypost.session.rollback``."""

    checkpoint_id: CheckpointId
    discard_later: bool = Field(default=False, description="drop every higher number, pinned ones too")


class ImportedCheckpoint(Body):
    """One element of an import: the interchange format of an export."""

    id: CheckpointId
    name: Name
    timestamp: Timestamp
    data: dict[str, Any]
    metadata: dict[str, Any] = {}


class ImportBody(Body):
    """Body of ``waypost.session.import``."""

    checkpoints: list[ImportedCheckpoint] = Field(json_schema_extra={"maxItems": MAX_IMPORT_ITEMS})
    on_conflict: OnConflict = "skip"


class PolicyBody(Body):
    """Body of ``waypost.session.configure`` and ``waypost.defaults.configure``: the fields to change."""

    max_checkpoints: int = Field(default=100, ge=MAX_CHECKPOINTS_BOUNDS[0], le=MAX_CHECKPOINTS_BOUNDS[1])
    compress_after: int = Field(default=50, ge=COMPRESS_AFTER_BOUNDS[0], le=COMPRESS_AFTER_BOUNDS[1])
    keep_recent: int = Field(default=20, ge=KEEP_RECENT_BOUNDS[0], le=KEEP_RECENT_BOUNDS[1])
    max_age: int | float | None = Field(
        default=None,
        ge=MAX_AGE_BOUNDS_SECONDS[0],
        le=MAX_AGE_BOUNDS_SECONDS[1],
        description="seconds; null keeps checkpoints indefinitely",
    )
    encrypted: bool = Field(
        default=False,
        description="accept only encrypted data; a session that does so stays so",
    )

    def changes(self) -> tuple[tuple[str, int | None], ...]:
        """The named fields, in the order of the model, ``max_age`` in whole microseconds."""
        changes: list[tuple[str, int | None]] = []
        for field in PolicyBody.model_fields:
            if field in self.model_fields_set:
                value = getattr(self, field)
                if field == "max_age" and value is not None:
                    value = round(value * 1_000_000)
                changes.append((field, value))
        return tuple(changes)


class ExpireBody(Body):
    """Body of ``waypost.session.expire``."""

    idle_since: Timestamp = Field(
        description="expire the session if its last accepted command is older by the broker's clock"
    )
    pinned: bool = Field(default=False, description="drop pinned checkpoints too")


class EraseBody(Body):
    """Body of ``waypost.session.erase``: an empty object."""


def _key(value: str) -> str:
    decode_key(value)
    return value


class AuthorityBody(Body):
    """Body of ``waypost.authority.configure``: the key that must sign commands about this partition."""

    key: (
        Annotated[
            str,
            Field(json_schema_extra={"contentEncoding": "base64", "minLength": 44, "maxLength": 44}),
            AfterValidator(_key),
        ]
        | None
    ) = Field(
        description="Ed25519 public key, 32 bytes in base64; null lets anybody configure the partition again"
    )


def _hash(value: str) -> str:
    decode_record_hash(value)
    return value


class SkipBody(Body):
    """Body of ``waypost.partition.skip``: the command to answer without reading it."""

    offset: int = Field(ge=0, le=2**63 - 1, description="of a command further up in this partition")
    record: Annotated[str, Field(json_schema_extra={"pattern": "^[0-9a-f]{32}$"}), AfterValidator(_hash)] = (
        Field(description="hash of its record, which 'waypost commands skip' takes")
    )
    reason: Annotated[
        str,
        Field(json_schema_extra={"minLength": 1, "maxLength": MAX_REASON}),
        AfterValidator(_text(MAX_REASON)),
    ] = Field(description="reason to show in the command's rejection")


BODIES: Final[dict[str, type[Body]]] = {
    EventType.CREATE: CreateBody,
    EventType.PIN: CheckpointBody,
    EventType.UNPIN: CheckpointBody,
    EventType.DELETE: CheckpointBody,
    EventType.CLEAR: ClearBody,
    EventType.ROLLBACK: RollbackBody,
    EventType.IMPORT: ImportBody,
    EventType.CONFIGURE: PolicyBody,
    EventType.EXPIRE: ExpireBody,
    EventType.ERASE: EraseBody,
    EventType.CONFIGURE_DEFAULTS: PolicyBody,
    EventType.CONFIGURE_AUTHORITY: AuthorityBody,
    EventType.SKIP: SkipBody,
}


def validate_body(model: type[Body], value: Any, at: str = "") -> Body:
    """Return ``value`` as ``model``. Raise InvalidCommandError (``invalid-body``) that names up to three fields.

    ``at`` is the path of a value within a body. The caller bounds the number of fields, because each unknown one is a
    separate error, and pydantic collects them all.
    """
    if not isinstance(value, dict):
        raise not_an_object(f"{at}: it" if at else "the body", value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        within = (at,) if at else ()
        problems = [
            f"{'.'.join(str(part) for part in (*within, *found['loc']))}: {_plainly(found['msg'])}"
            for found in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise InvalidCommandError("invalid-body", shown[:1000]) from None


def _plainly(message: str) -> str:
    return message.removeprefix("Value error, ").replace(
        "Extra inputs are not permitted", "unknown field; remove it"
    )
