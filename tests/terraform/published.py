"""A provider's schema, read from the bindings that its publisher's generator made of it.

Where no provider can be downloaded, the package `cdktn-provider-NAME` on PyPI still has every argument, block and
attribute: CDK for Terraform's generator writes one JavaScript module for each resource, in one fixed form. This
module turns that form back into what `terraform providers schema -json` prints, for the resources asked for, so
that the same file can be made from the real provider and compared.

What the generator leaves out is left out here: descriptions, which attributes are sensitive, and which sets of
primitive values are lists. An attribute whose name ends in `_wo` is write-only: the providers keep to that.
"""

import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

PRIMITIVES = {
    "getStringAttribute": "string",
    "getNumberAttribute": "number",
    "getBooleanAttribute": "bool",
    "getListAttribute": ["list", "string"],
    "getNumberListAttribute": ["list", "number"],
    "getStringMapAttribute": ["map", "string"],
    "interpolationForAttribute": "dynamic",
}
KINDS = {"resource": "resource_schemas", "data": "data_source_schemas", "ephemeral": "ephemeral_resource_schemas"}

_CLASS = re.compile(r"^class (\w+) extends cdktn\.\w+ \{$(.*?)^\}$", re.MULTILINE | re.DOTALL)
_MEMBER = re.compile(
    r"// (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n"
    r"\s+_?(?:(\w+) = new (\w+)\(this, \"\w+\"(?:, (true|false))?\);|\w+;)?"
    r".*?return ([^\n]*);",
    re.DOTALL,
)
_STORED = re.compile(r"^\s+(\w+): \{\n\s+value: [^\n]*\n\s+isBlock: \w+,\n\s+type: \"(\w+)\",\n\s+storage\w+: \"(\w+)\"", re.M)
_INTERFACE = re.compile(r"^export interface (\w+) .*?^\}$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"\* \w+ block\n.*?#(\w+) ", re.DOTALL)


@dataclass(frozen=True)
class Module:
    """One generated module: its classes by name, which names are blocks, and how each name is written out."""

    classes: dict[str, str]
    blocks: dict[str, set[str]]
    stored: dict[str, dict[str, tuple[str, str]]]


def module(javascript: str, declarations: str) -> Module:
    """Read the two files of one module: `index.js` and `index.d.ts`."""
    functions = re.findall(r"^function (\w+)ToHclTerraform\(.*?$(.*?)^\}$", javascript, re.MULTILINE | re.DOTALL)
    return Module(
        classes=dict(_CLASS.findall(javascript)),
        blocks={found[1]: set(_BLOCK.findall(found[0])) for found in _interfaces(declarations)},
        stored={_key(name): _stored(body) for name, body in functions},
    )


def _interfaces(declarations: str) -> Iterator[tuple[str, str]]:
    for found in _INTERFACE.finditer(declarations):
        yield found[0], _key(found[1])


def _key(name: str) -> str:
    return name.lower()


def _stored(body: str) -> dict[str, tuple[str, str]]:
    return {name: (kind, storage) for name, kind, storage in _STORED.findall(body)}


def block(source: Module, struct: str, body: str, stored: dict[str, tuple[str, str]]) -> Schema:
    """Return the schema of one block: `struct` names the interface whose comments say what is a block itself."""
    attributes: Schema = {}
    block_types: Schema = {}
    for name, computed, optional, required, _, member, wraps_set, returned in _MEMBER.findall(body):
        flags = {"computed": computed == "true", "optional": optional == "true", "required": required == "true"}
        kind, storage = stored.get(name, ("", ""))
        nested = _nested(source, member or storage)
        if nested is None:
            attributes[name] = {"type": _primitive(returned, kind, storage), **_true(flags), **_write_only(name)}
        elif name in source.blocks.get(_key(struct), set()):
            block_types[name] = _block_type(nested, member, kind, wraps_set == "true", flags["required"])
        else:
            mode = _mode(member, kind, wraps_set == "true")
            attributes[name] = {"nested_type": {"nesting_mode": mode, "attributes": nested["attributes"]}, **_true(flags)}
    return {"attributes": attributes, "block_types": block_types}


def _true(flags: dict[str, bool]) -> dict[str, bool]:
    return {name: True for name, value in flags.items() if value}


def _write_only(name: str) -> dict[str, bool]:
    return {"write_only": True} if name.endswith("_wo") else {}


def _primitive(returned: str, kind: str, storage: str) -> Any:
    getter = next((name for name in PRIMITIVES if name in returned), None)
    if getter is None:  # the arguments of a provider are plain members, without getters
        simple = {"string": "string", "number": "number", "boolean": "bool"}
        return simple.get(storage, ["list", "string"] if kind == "list" else "dynamic")
    value = PRIMITIVES[getter]
    return ["set", value[1]] if "Fn.tolist" in returned else value


def _nested(source: Module, class_name: str) -> Schema | None:
    struct = re.sub(r"(OutputReference|List|Map)$", "", class_name)
    body = source.classes.get(f"{struct}OutputReference")
    stored = source.stored.get(_key(struct))
    if body is not None:
        return block(source, struct, body, stored or {})
    if stored is not None:  # a block of the provider itself
        return _plain(source, struct, stored)
    return None


def _plain(source: Module, struct: str, stored: dict[str, tuple[str, str]]) -> Schema:
    lines = "".join(f"// {name} - computed: false, optional: true, required: false\n return this;" for name in stored)
    return block(source, struct, lines, stored)


def _mode(member: str, kind: str, is_set: bool) -> str:
    if kind == "struct":
        return "single"
    if member.endswith("Map") or kind == "map":
        return "map"
    return "set" if is_set or kind == "set" else "list"


def _block_type(nested: Schema, member: str, kind: str, is_set: bool, required: bool) -> Schema:
    found: Schema = {"nesting_mode": _mode(member, kind, is_set), "block": nested}
    if found["nesting_mode"] != "single":
        found |= {"min_items": 1} if required else {}
        found |= {} if member.endswith("List") else {"max_items": 1}
    return found


def top(source: Module) -> Schema:
    """Return the schema of the module's resource, data source, ephemeral resource or provider."""
    name, body = list(source.classes.items())[-1]
    synthesis = body.split("synthesizeHclAttributes()")[-1]
    return {"version": 0, "block": block(source, f"{name}Config", body, _stored(synthesis))}


def read(wheel: Path, wanted: set[tuple[str, str]]) -> Schema:
    """Return the schemas of the (kind, type) pairs of `wanted`, and of the provider, from a `cdktn-provider` wheel."""
    with zipfile.ZipFile(wheel) as archive:
        inner = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        package = tarfile.open(fileobj=io.BytesIO(archive.read(inner)))
    provider = re.sub(r"^cdktn_provider_(\w+?)-.*", r"\1", wheel.name)
    found: Schema = {"provider": {}, **{key: {} for key in KINDS.values()}}
    folders = {_folder(kind, name, provider): (KINDS[kind], name) for kind, name in wanted} | {"provider": ("provider", "")}
    texts: dict[str, dict[str, str]] = {}
    for member in package:
        parts = member.name.split("/")
        if len(parts) == 4 and parts[2] in folders and parts[3] in ("index.js", "index.d.ts"):
            stream = package.extractfile(member)
            texts.setdefault(parts[2], {})[parts[3]] = stream.read().decode() if stream else ""
    for folder, (key, name) in folders.items():
        schema = top(module(texts[folder]["index.js"], texts[folder]["index.d.ts"]))
        if name:
            found[key][name] = schema
        else:
            found["provider"] = schema
    version = re.search(r"providerVersion: '([\d.]+)'", "".join(text["index.js"] for text in texts.values()))
    address = f"registry.terraform.io/hashicorp/{provider}"
    return {
        "format_version": "1.0",
        "source": f"cdktn-provider-{provider} {wheel.name.split('-')[1]}",
        "version": version[1] if version else "",
        "provider_schemas": {address: found},
    }


def _folder(kind: str, name: str, provider: str) -> str:
    """Name the folder of a type: resources lose the provider's name, the other kinds keep it behind their own."""
    dashed = name.replace("_", "-")
    return dashed.removeprefix(f"{provider}-") if kind == "resource" else f"{kind}-{dashed}"


if __name__ == "__main__":
    types = {(kind, name) for kind, name in (word.split(".") for word in sys.argv[2:])}
    sys.stdout.write(json.dumps(read(Path(sys.argv[1]), types), indent=1, sort_keys=True) + "\n")
