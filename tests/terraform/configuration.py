"""Read Terraform configurations as data, and compare them with a provider's schema."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hcl2

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROOTS = tuple(ROOT / "terraform" / name for name in ("azure", "bootstrap", "argocd"))
SCHEMAS = {name: json.loads((HERE / "schemas" / f"{name}.json").read_text()) for name in ("azurerm", "helm")}
KINDS = {"resource": "resource_schemas", "data": "data_source_schemas", "ephemeral": "ephemeral_resource_schemas"}
META = {
    "count",
    "for_each",
    "depends_on",
    "lifecycle",
    "provider",
    "__is_block__",
    "__comments__",
    "__inline_comments__",
}

Body = dict[str, Any]

_REFERENCE = re.compile(
    r"(?<![\w.])((?:data\.)?)((?:azurerm|helm)_\w+)\.(\w+)((?:\[[^\[\]]*(?:\[[^\]]*\])?[^\[\]]*\]|\.\w+)*)"
)


@dataclass(frozen=True)
class Block:
    """One resource or data source: `kind` is resource or data, `type` the provider's type, `body` its arguments."""

    kind: str
    type: str
    name: str
    body: Body

    @property
    def address(self) -> str:
        """Return the address by which Terraform calls the block."""
        return ("data." if self.kind == "data" else "") + f"{self.type}.{self.name}"


def parse(text: str) -> Body:
    """Return the top-level blocks of a file by their kind."""
    return hcl2.loads(text)


@functools.cache
def files(root: Path) -> list[Body]:
    """Return every file of a configuration."""
    return [parse(path.read_text()) for path in sorted(root.glob("*.tf"))]


def labelled(parsed: list[Body], kind: str) -> Iterator[tuple[str, Body]]:
    """Return the blocks of one kind with a single label: variables, outputs, providers."""
    for file in parsed:
        for block in file.get(kind, []):
            for label, body in block.items():
                if not label.startswith("__"):
                    yield label.strip('"'), body


def blocks(parsed: list[Body]) -> list[Block]:
    """Return resources and data sources."""
    return [
        Block(kind, type_name, name.strip('"'), body)
        for kind in KINDS
        for type_name, named in labelled(parsed, kind)
        for name, body in named.items()
        if not name.startswith("__")
    ]


def schema_of(kind: str, type_name: str) -> Body:
    """Return the provider's schema of a type; raise KeyError when the provider has no such type."""
    provider = SCHEMAS[type_name.split("_", maxsplit=1)[0]]["provider_schemas"]
    return next(iter(provider.values()))[KINDS[kind]][type_name]["block"]  # type: ignore[no-any-return]


def provider_schema(name: str) -> Body:
    """Return the schema of the provider's own arguments."""
    return next(iter(SCHEMAS[name]["provider_schemas"].values()))["provider"]["block"]  # type: ignore[no-any-return]


def parts(attribute: Body) -> Body | None:
    """Return the schema of an attribute's content if it has a shape: a nested type, or values of an object type."""
    if nested := attribute.get("nested_type"):
        return nested  # type: ignore[no-any-return]
    kind = attribute["type"]
    while isinstance(kind, list) and kind[0] in ("list", "set", "map"):
        kind = kind[1]
    if isinstance(kind, list):
        return {"attributes": {name: {"type": inner, "optional": True} for name, inner in kind[1].items()}}
    return None


def faults(body: Body, schema: Body, path: str) -> Iterator[str]:
    """Yield each argument that the schema does not know, that cannot be set, or that is missing."""
    given = {name: value for name, value in body.items() if name not in META}
    for dynamic in given.pop("dynamic", []):
        for label, inner in dynamic.items():
            if not label.startswith("__"):
                given[label.strip('"')] = inner["content"]
    attributes, nested = schema["attributes"], schema.get("block_types", {})
    for name, value in given.items():
        if name in attributes:
            yield from _attribute_faults(value, attributes[name], f"{path}.{name}")
        elif name in nested:
            yield from _block_faults(value, nested[name], f"{path}.{name}")
        else:
            yield f"{path}.{name}: no such argument"
    needed = [name for name, value in attributes.items() if value.get("required")]
    needed += [name for name, value in nested.items() if value.get("min_items")]
    yield from (f"{path}.{name}: required" for name in needed if name not in given)


def _attribute_faults(value: Any, attribute: Body, path: str) -> Iterator[str]:
    if not (attribute.get("optional") or attribute.get("required")):
        yield f"{path}: read-only"
    nested = parts(attribute)
    for item in value if isinstance(value, list) else [value]:
        if nested and isinstance(item, dict):
            yield from faults(item, nested, path)


def _block_faults(value: Any, block: Body, path: str) -> Iterator[str]:
    if len(value) > block.get("max_items", len(value)):
        yield f"{path}: at most {block['max_items']}"
    for item in value:
        yield from faults(item, block["block"], path)


def strings(value: Any) -> Iterator[str]:
    """Yield every expression in a tree, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def broken_references(parsed: list[Body]) -> Iterator[str]:
    """Yield each reference to a resource that is not declared, or to an attribute that its type does not have."""
    declared = {block.address: block for block in blocks(parsed)}
    for text in strings(parsed):
        for data, type_name, name, rest in _REFERENCE.findall(text):
            target = declared.get(f"{data}{type_name}.{name}")
            if target is None:
                yield f"{data}{type_name}.{name}: not declared"
            elif (
                missing := _missing(schema_of(target.kind, target.type), re.findall(r"\.(\w+)", _unindexed(rest)))
            ) is not None:
                yield f"{target.address}.{missing}: no such attribute"


def _unindexed(rest: str) -> str:
    return re.sub(r"\[.*?\](?=\.|\[|$)", "", rest)


def _missing(schema: Body | None, path: list[str]) -> str | None:
    for name in path:
        if schema is None:
            return None
        attribute, block = schema["attributes"].get(name), schema.get("block_types", {}).get(name)
        if attribute is None and block is None:
            return name
        schema = block["block"] if block else parts(attribute)
    return None
