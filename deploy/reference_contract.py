"""The fields of every command and result, from schemas/json, as the site's page on the contract shows them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

SCHEMAS: Final = Path(__file__).parents[1] / "schemas" / "json"


def sections() -> str:
    """Return the tables of all commands, then of all results, in the order of the AsyncAPI file."""
    channels = json.loads((SCHEMAS / "asyncapi.json").read_text(encoding="utf-8"))["channels"]
    parts = []
    for channel, heading in (("commands", "Commands"), ("results", "Results")):
        parts.append(f"## {heading}\n\n{channels[channel]['description']}\n")
        parts += [_section(name) for name in channels[channel]["messages"]]
    return "\n".join(parts)


def _section(name: str) -> str:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    about = "" if schema["description"].startswith("Body of ``") else f"{_plain(schema['description'])}\n\n"
    rows = [*_rows(schema)]
    if not rows:
        return f"### {name}\n\n{about}The body is an empty object.\n"
    lines = ["| field | type | meaning |", "|---|---|---|", *rows]
    text = f"### {name}\n\n{about}" + "\n".join(lines) + "\n"
    for title, nested in schema.get("$defs", {}).items():
        if nested.get("type") == "object":
            lines = ["| field | type | meaning |", "|---|---|---|", *_rows(nested)]
            text += f"\n`{title}`: {_plain(nested.get('description', ''))}\n\n" + "\n".join(lines) + "\n"
    return text


def _rows(schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        meaning = _plain(field.get("description", ""))
        if name not in required:
            default = json.dumps(field["default"]) if "default" in field else ""
            meaning += f"{'; ' if meaning else ''}optional" + (f", default `{default}`" if default else "")
        yield f"| `{name}` | {_type(field)} | {meaning} |"


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def _type(field: Mapping[str, Any]) -> str:
    """Return what a value may be, in words."""
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"])
    if "$ref" in field:
        return f"`{field['$ref'].rpartition('/')[2]}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        items = field.get("items", {})
        return f"list of {_type(items)}" if items else "list"
    low, high = field.get("minimum", field.get("minLength")), field.get("maximum", field.get("maxLength"))
    unit = " characters" if field.get("type") == "string" else ""
    bounds = "" if high is None else f", {low or 0:,} to {high:,}{unit}"
    return f"{field.get('type', 'any value')}{bounds}"
