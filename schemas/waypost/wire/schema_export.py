"""The contract as files: JSON Schema of every body, and one AsyncAPI 3.0 document, made from the models.

``export`` writes them, ``check`` says where the files in a checkout differ from the models.
"""

from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from waypost.wire.command_models import BODIES
from waypost.wire.event_types import PARTITION_TYPES, EventType
from waypost.wire.result_models import RESULTS
from waypost.wire.topics import Topics

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_CODES: Final = (
    "invalid-envelope",
    "invalid-body",
    "too-large",
    "unsupported-type",
    "unknown-checkpoint",
    "conflict",
    "pin-limit",
    "encryption-required",
    "misrouted",
    "undecodable",
    "unauthorized",
    "skipped",
    "erased",
)


def documents() -> dict[str, bytes]:
    """File names and contents."""
    made = {}
    for kind, model in {**BODIES, **RESULTS}.items():
        made[f"{kind}.schema.json"] = _text(json_schema(kind, model))
    made["asyncapi.json"] = _text(asyncapi())
    return made


def export(directory: Path) -> list[Path]:
    """Write all files into ``directory``, which is created if necessary. Return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in documents().items():
        path = directory / name
        path.write_bytes(content)
        written.append(path)
    return written


def check(directory: Path) -> list[str]:
    """Differences between the files in ``directory`` and the models, one line each."""
    wanted = documents()
    found = {path.name: path.read_bytes() for path in directory.glob("*.json")} if directory.exists() else {}
    problems = [f"{name} is missing" for name in sorted(set(wanted) - set(found))]
    problems += [f"{name} belongs to no model" for name in sorted(set(found) - set(wanted))]
    problems += [
        f"{name} differs from its model"
        for name in sorted(set(found) & set(wanted))
        if found[name] != wanted[name]
    ]
    return problems


def json_schema(kind: str, model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a body."""
    return {"$schema": _DIALECT, "$id": f"urn:waypost:{kind}", **_standard(model.model_json_schema())}


def _standard(schema: Any) -> Any:
    """``schema`` with the bounds of a union, which pydantic leaves under its own names, under JSON Schema's."""
    if isinstance(schema, list):
        return [_standard(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    names = {"ge": "minimum", "le": "maximum"}
    return {names.get(key, key): _standard(value) for key, value in schema.items()}


def asyncapi(topics: Topics | None = None) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the two topics."""
    topics = topics or Topics()
    models = {**BODIES, **RESULTS}
    # One place for all schemas, because a reference within the document must not depend on a separate base URI.
    references, schemas = models_json_schema(
        [(model, "validation") for model in models.values()], ref_template="#/components/schemas/{model}"
    )
    messages = {
        kind: _message(kind, model, references[model, "validation"]) for kind, model in models.items()
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Waypost",
            "version": "1.0.0",
            "description": "Checkpoint commands in, one result event per command out, in order per session.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "commands": _channel(topics.commands, "The topic to which agents publish commands.", BODIES),
            "results": _channel(topics.results, "One event per command, in command order.", RESULTS),
        },
        "operations": {
            "publishCommand": _operation("receive", "commands", BODIES),
            "receiveResult": _operation("send", "results", RESULTS),
        },
        "components": {
            "messages": messages,
            "schemas": {
                **_standard(schemas["$defs"]),
                "CommandHeaders": _headers(_COMMAND_HEADERS),
                "ResultHeaders": _headers(_RESULT_HEADERS),
            },
        },
    }


def _channel(address: str, description: str, kinds: dict[str, Any]) -> dict[str, Any]:
    return {
        "address": address,
        "description": description,
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in kinds},
        "bindings": {"kafka": {"topic": address, "bindingVersion": "0.5.0"}},
    }


def _operation(action: str, channel: str, kinds: dict[str, Any]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{kind}"} for kind in kinds],
    }


def _message(kind: str, model: type[BaseModel], payload: dict[str, Any]) -> dict[str, Any]:
    summary = (model.__doc__ or "").strip().splitlines()[0].replace("``", "")
    headers = "CommandHeaders" if kind in BODIES else "ResultHeaders"
    message: dict[str, Any] = {
        "name": kind,
        "title": kind,
        "summary": summary,
        "contentType": "application/json",
        "headers": {"$ref": f"#/components/schemas/{headers}"},
        "payload": payload,
    }
    if kind not in _WITHOUT_KEY:
        key = {"type": "string", "description": "the session id, UTF-8"}
        message["bindings"] = {"kafka": {"key": key, "bindingVersion": "0.5.0"}}
    if kind == EventType.REJECTED:
        message["description"] = f"Codes: {', '.join(_CODES)}."
    return message


_WITHOUT_KEY: Final = (
    *PARTITION_TYPES,
    EventType.DEFAULTS_CONFIGURED,
    EventType.AUTHORITY_CONFIGURED,
    EventType.SKIPPED,
    EventType.ACQUIRED,
)
_TRACE: Final = {"traceparent": {"type": "string", "description": "W3C trace context, if there is one"}}
_TIME: Final = {"type": "string", "format": "date-time"}
_COMMAND_HEADERS: Final[dict[str, Any]] = {
    "ce_id": {"type": "string", "minLength": 1, "maxLength": 64, "description": "the command id"},
    "ce_time": {**_TIME, "description": "when the agent took it"},
    "ce_signature": {
        "type": "string",
        "contentEncoding": "base64",
        "description": "Ed25519 signature of a command about a whole partition, if the partition has an authority",
    },
    **_TRACE,
}
_RESULT_HEADERS: Final[dict[str, Any]] = {
    "ce_id": {"type": "string", "description": "the same after every replay"},
    "ce_time": {**_TIME, "description": "the broker's clock at the command"},
    "ce_subject": {"type": "string", "description": "the checkpoint or session id"},
    "ce_sessionid": {"type": "string", "description": "the session id"},
    "ce_checkpointname": {"type": "string", "description": "the checkpoint's name"},
    **_TRACE,
}


def _headers(own: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": "CloudEvents 1.0, Kafka protocol binding, binary content mode.",
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
        "properties": {
            "ce_specversion": {"type": "string", "const": "1.0"},
            "ce_source": {"type": "string", "minLength": 1},
            "ce_type": {"type": "string", "description": "the name of the message"},
            "content-type": {"type": "string", "const": "application/json"},
            **own,
        },
    }


def _text(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n"
