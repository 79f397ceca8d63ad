"""Makes the JSON Schema of report.json from the types that are written into it.

`python -m eval.report.schema` prints it; `report.schema.json` beside this module is that, and a test holds both together.
`python -m eval.report.schema FILE` holds a report against it.
"""

import dataclasses
import functools
import json
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.findings import printable

from .results import Report
from .write import IN_JSON, SCHEMA_VERSION

FILE = Path(__file__).with_name("report.schema.json")
NOT_FINITE = ["inf", "-inf", "nan"]
"""JSON has no such numbers: they are texts."""
KINDS: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
    "number": (int, float),
}  # fmt: skip
PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"anyOf": [{"type": "number"}, {"enum": NOT_FINITE}]},
    type(None): {"type": "null"},
    Any: {},
}


@functools.cache
def schema() -> dict[str, Any]:
    """The schema: what is always there is required, and a reader has to bear keys that it does not know."""
    hints, made = typing.get_type_hints(Report), {}
    found = {key: _of(hints[name], made) for key, name in {"estimates": "estimates", **IN_JSON}.items()}
    always = {
        "schema_version": {"const": SCHEMA_VERSION},
        "date": {"type": "string", "description": "ISO 8601, UTC"},
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
        "name": {"type": "string", "description": "Of the policy in question"},
        "verdict": {"type": "string"},
        "estimates": found.pop("estimates"),
        "settings": {"type": "object"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"report.json of alignkit, schema_version {SCHEMA_VERSION}",
        "type": "object",
        "required": list(always),
        "properties": always | found,
        "$defs": made,
    }


def _of(hint: Any, made: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; classes are put into `made` under their names."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_of(one, made) for one in inner]}
    if origin is list:
        return {"type": "array", "items": _of(inner[0], made)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _of(inner[1], made)}
    if not (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields")) or not isinstance(hint, type):
        raise TypeError(f"{hint}: a type of which no schema is known; add it to PLAIN")
    name: str = hint.__name__
    if name not in made:
        made[name] = {}
        fields = {key: _of(each, made) for key, each in typing.get_type_hints(hint).items()}
        made[name] = {
            "type": "object",
            "description": " ".join(str(hint.__doc__).split("\n\n")[0].split()),
            "required": list(fields),
            "properties": fields,
        }
    return {"$ref": f"#/$defs/{name}"}


def as_text() -> str:
    """What `report.schema.json` holds."""
    return json.dumps(schema(), indent=2) + "\n"


def problems(value: Any, of: Mapping[str, Any] | None = None, where: str = "report") -> list[str]:
    """What is wrong with a value by the schema, one message each; stricter than it: every key has to be known.

    Args:
        value: What JSON gave.
        of: The part of the schema that it is held against; by default all.
        where: Its place in the report.
    """
    whole = schema()
    of = whole if of is None else of
    if "$ref" in of:
        return problems(value, whole["$defs"][of["$ref"].rpartition("/")[2]], where)
    if "anyOf" in of:
        found = [problems(value, each, where) for each in of["anyOf"]]
        return [] if [] in found else min(found, key=len)
    if "enum" in of or "const" in of:
        allowed = of.get("enum", [of.get("const")])
        return [] if value in allowed else [f"{where}: {value!r} is none of {allowed}"]
    kind = of.get("type")
    if kind is not None and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{where}: {value!r} is no {kind}"]
    found = [f"{where}: no {key}" for key in of.get("required", []) if key not in value]
    if isinstance(value, list):
        found += [told for i, item in enumerate(value) for told in problems(item, of.get("items", {}), f"{where}/{i}")]
    known = of.get("properties", {})
    for key, item in value.items() if isinstance(value, dict) else ():
        found += [f"{where}: {key} is not in the schema"] if known and key not in known else []
        found += problems(item, known.get(key, of.get("additionalProperties", {})), f"{where}/{key}")
    return found


def main(words: list[str]) -> int:
    """Print the schema, or what is wrong with a report by it; exit code 1 if something is, 2 if there is none to read."""
    if not words:
        sys.stdout.write(as_text())
        return 0
    try:
        read = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no JSON"
        sys.stderr.write(f"{printable(words[0], 500)}: {why}; name a report.json\n")
        return 2
    found = problems(read)
    sys.stdout.write("".join(f"{told}\n" for told in found or [f"{words[0]}: fits the schema"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
