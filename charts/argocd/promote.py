"""Change one digest or one version of the model in an environment's file, and leave the rest of the file as it is.

python charts/argocd/promote.py staging image gateway sha256:...
python charts/argocd/promote.py staging model add 4 sha256:...
python charts/argocd/promote.py staging model canary 4 10
python charts/argocd/promote.py staging model default 4
python charts/argocd/promote.py staging model remove 3
python charts/argocd/promote.py production image gateway --from staging

The commit that follows is the promotion, its revert the way back. Needs PyYAML. Exit code 2: refused, file unchanged.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ENVIRONMENTS = Path(__file__).parent / "environments"
COMPONENTS = ("gateway", "transcriber", "persistence", "triton")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Refused(Exception):
    """The change would not be a promotion; the text says why."""


def set_digest(text: str, component: str, digest: str) -> str:
    """Return the environment's text with another digest of an image. Raises `Refused`."""
    if component not in COMPONENTS:
        raise Refused(f"there is no image {component!r}: {', '.join(COMPONENTS)}")
    return _replace(text, ("images", component, "digest"), _checked(digest))


def add_version(text: str, version: int, digest: str) -> str:
    """Return the text with one more version of the model for Triton to load. Raises `Refused`.

    A version that is there by its tag alone, as the first one is, gets its digest.
    """
    model = _model(text)
    entries = _node(text, ("model", "versions")).value
    if version in _versions(model):
        index = _versions(model).index(version)
        if model["versions"][index]["digest"]:
            raise Refused(f"version {version} is there: a version is never another content")
        return _put(text, _child(entries[index], "digest"), _checked(digest))
    last = entries[-1]
    indent = " " * (last.start_mark.column - 2)
    entry = (
        f"{indent}- version: {version}\n",
        f"{indent}  image: {model['versions'][-1]['image']}\n",
        f'{indent}  tag: "{version}"\n',
        f"{indent}  digest: {_checked(digest)}\n",
    )
    lines = text.splitlines(keepends=True)
    lines[_after(last) : _after(last)] = entry
    return "".join(lines)


def remove_version(text: str, version: int) -> str:
    """Return the text without a version of the model that nothing is routed to. Raises `Refused`."""
    model = _model(text)
    _require(model, version)
    if version in (model["default"], (model["canary"] or {}).get("version")):
        raise Refused(f"version {version} serves sessions: set another default, end the canary")
    node = _node(text, ("model", "versions")).value[_versions(model).index(version)]
    lines = text.splitlines(keepends=True)
    del lines[node.start_mark.line : _after(node)]
    return "".join(lines)


def set_default(text: str, version: int) -> str:
    """Return the text with another version that serves sessions; a canary of that version ends. Raises `Refused`."""
    model = _model(text)
    _require(model, version)
    if (model["canary"] or {}).get("version") == version:
        text = set_canary(text, version, 0)
    return _replace(text, ("model", "default"), str(version))


def set_canary(text: str, version: int, share_percent: float) -> str:
    """Return the text with a version on trial for a share of sessions; a share of 0 ends it. Raises `Refused`."""
    model = _model(text)
    _require(model, version)
    if not 0 <= share_percent < 100:
        raise Refused(f"a share of {share_percent:g} percent: 0 ends a canary, and 100 is the default's")
    if share_percent and version == model["default"]:
        raise Refused(f"version {version} is the default already")
    canary = f"{{version: {version}, sharePercent: {share_percent:g}}}" if share_percent else "null"
    return _replace(text, ("model", "canary"), canary)


def digest_of(text: str, component: str) -> str:
    """Return an image's digest. Raises `Refused` where there is none to promote."""
    try:
        return _checked(yaml.safe_load(text)["images"][component]["digest"])
    except KeyError:
        raise Refused(f"there is no image {component!r}: {', '.join(COMPONENTS)}") from None


def _replace(text: str, path: Sequence[str], value: str) -> str:
    return _put(text, _node(text, path), value)


def _put(text: str, node: Any, value: str) -> str:
    return text[: node.start_mark.index] + value + text[node.end_mark.index :]


def _node(text: str, path: Sequence[str]) -> Any:
    """Return the YAML node at a path; its marks say where in the text it lies."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for name in path:
        node = _child(node, name)
    return node


def _child(node: Any, name: str) -> Any:
    found = next((value for key, value in node.value if key.value == name), None)
    if found is None:
        raise Refused(f"the file has no {name} from line {node.start_mark.line + 1} on")
    return found


def _after(entry: Any) -> int:
    """Return the index of the line after a mapping. Its own end mark would be where the next node begins."""
    line: int = entry.value[-1][1].end_mark.line + 1
    return line


def _model(text: str) -> dict[str, Any]:
    model: dict[str, Any] = yaml.safe_load(text)["model"]
    return model


def _versions(model: dict[str, Any]) -> list[int]:
    return [entry["version"] for entry in model["versions"]]


def _require(model: dict[str, Any], version: int) -> None:
    if version not in _versions(model):
        raise Refused(f"version {version} is not loaded: there are {_versions(model)}")


def _checked(digest: str) -> str:
    if not DIGEST.fullmatch(digest):
        raise Refused(f"{digest!r} is no digest: sha256: and 64 hexadecimal digits")
    return digest


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("environment", choices=sorted(path.stem for path in ENVIRONMENTS.glob("*.yaml")))
    kinds = parser.add_subparsers(dest="kind", required=True)
    image = kinds.add_parser("image", help="another digest of an image")
    image.add_argument("component", help=", ".join(COMPONENTS))
    image.add_argument("digest", nargs="?", help="sha256:...")
    image.add_argument("--from", dest="origin", choices=["staging"], help="take the digest that runs there")
    model = kinds.add_parser("model", help="which versions are loaded, and which serve").add_subparsers(
        dest="change", required=True
    )
    for name, extra in (("add", "digest"), ("remove", None), ("default", None), ("canary", "share_percent")):
        change = model.add_parser(name)
        change.add_argument("version", type=int)
        if extra:
            change.add_argument(extra, type=float if extra == "share_percent" else str)
    return parser


def _promoted(text: str, arguments: argparse.Namespace) -> str:
    if arguments.kind == "image":
        if (arguments.digest is None) == (arguments.origin is None):
            raise Refused("give a digest, or --from an environment")
        digest = arguments.digest or digest_of((ENVIRONMENTS / "staging.yaml").read_text(), arguments.component)
        return set_digest(text, arguments.component, digest)
    if arguments.change == "add":
        return add_version(text, arguments.version, arguments.digest)
    if arguments.change == "canary":
        return set_canary(text, arguments.version, arguments.share_percent)
    return {"remove": remove_version, "default": set_default}[arguments.change](text, arguments.version)


def main(command_line: Sequence[str] | None = None) -> None:
    """Change the environment's file as the command line says."""
    parser = _arguments()
    arguments = parser.parse_args(command_line)
    file = ENVIRONMENTS / f"{arguments.environment}.yaml"
    try:
        file.write_text(_promoted(file.read_text(), arguments))
    except Refused as error:
        parser.exit(2, f"refused: {error}\n")


if __name__ == "__main__":
    main()
