"""JSON Schema of the config, for completion and checks in editors."""

from typing import Any

from imgrec_cli.config.sections import Config


def json_schema() -> dict[str, Any]:
    """Schema (draft 7) of a config file; `configs/schema.json` is this, written out."""
    schema = Config.model_json_schema()
    _simplify(schema)
    return {"$schema": "http://json-schema.org/draft-07/schema#"} | schema | {"title": "imgrec config"}


def _simplify(node: Any) -> None:
    if isinstance(node, dict):
        # draft 7 has no prefixItems; our pairs hold two of the same kind, so their first says it
        if "prefixItems" in node:
            node["items"] = node.pop("prefixItems")[0]
        for inner in node.values():
            _simplify(inner)
    elif isinstance(node, list):
        for inner in node:
            _simplify(inner)
