"""Render charts with Helm itself, and validate their objects with the schemas of their kinds."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

REPOSITORY = Path(__file__).parents[2]
CHARTS = REPOSITORY / "charts"
SCHEMAS = Path(__file__).parent / "schemas"  # of custom resources; Kubernetes' own are in kubernetes-validate
KUBERNETES = "1.35.0"  # the oldest that the charts support: image volumes are on by default from here, not from 1.33

_SAME = {"azmonitoring.coreos.com": "monitoring.coreos.com"}  # Azure Monitor's copies differ in the group alone

Object = dict[str, Any]
RenderError = helm_python.HelmError


class InvalidObject(Exception):
    """An object is not what the schema of its kind allows; the text names the object and the field."""


def render(
    chart: str | Path,
    values: Mapping[str, Any] | None = None,
    *,
    name: str = "whisperline",
    namespace: str = "whisperline",
) -> list[Object]:
    """Return the objects that an installation applies, hooks included.

    `chart` is a path, or a name under charts/. Raises `RenderError`, values that the chart's schema refuses included.
    """
    with helm_python.Chart.load(CHARTS / chart) as loaded:
        files = loaded.render(dict(values or {}), name=name, namespace=namespace)
    manifests = (text for path, text in sorted(files.items()) if path.endswith((".yaml", ".yml")))
    return [document for text in manifests for document in yaml.load_all(text, _Loader) if document]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a repeated key, as the API server does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping. Raises `yaml.constructor.ConstructorError`."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def merged_values(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge values as Helm merges several --values files: maps key by key; for everything else, the last one wins."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            known = result.get(key)
            if isinstance(known, Mapping) and isinstance(value, Mapping):
                value = merged_values(known, value)  # noqa: PLW2901 - the value as merged takes its place
            result[key] = value
    return result


def values_file(path: str | Path) -> dict[str, Any]:
    """Read a values file, given relative to the repository."""
    return yaml.safe_load((REPOSITORY / path).read_text()) or {}


def validate(objects: Iterable[Object]) -> None:
    """Validate each object with its kind's schema, unknown keys refused. Raises `InvalidObject`, which lists all."""
    problems = [f"{label(found)}: {problem}" for found in objects for problem in _problems(found)]
    if problems:
        raise InvalidObject("\n".join(problems))


def label(found: Object) -> str:
    """Return the name of an object for messages."""
    return f"{found.get('kind')}/{found.get('metadata', {}).get('name')}"


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """Return the objects of some kinds."""
    return [found for found in objects if found["kind"] in kinds]


def pod_template(found: Object) -> Object | None:
    """Return the pod template of a workload, None for any other kind."""
    if found["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        template: Object = found["spec"]["template"]
        return template
    return None


def _problems(found: Object) -> list[str]:
    validator = _validator(str(found.get("apiVersion")), str(found.get("kind")))
    if validator is None:
        return [f"there is no schema of {found.get('apiVersion')} {found.get('kind')}"]
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(found)]


@cache
def _validator(api_version: str, kind: str) -> Validator | None:
    group, _, version = api_version.rpartition("/")
    custom = SCHEMAS / _SAME.get(group, group) / f"{kind.lower()}_{version}.json"
    if custom.is_file():
        return Draft202012Validator(yaml.safe_load(custom.read_text()))
    return _kubernetes_validator(re.sub(r"\..*", "", group), version, kind)


def _kubernetes_validator(group: str, version: str, kind: str) -> Validator | None:
    name = "-".join(filter(None, (kind.lower(), group, version)))
    folder = f"kubernetes-json-schema/v{KUBERNETES}-local-strict"
    try:
        schema = schema_contents(f"{folder}/{name}.json", KUBERNETES)
    except FileNotFoundError:
        return None
    return Draft202012Validator(schema, registry=_definitions(folder))


@cache
def _definitions(folder: str) -> Registry[Any]:
    contents = schema_contents(f"{folder}/_definitions.json", KUBERNETES)
    return Resource.from_contents(contents) @ Registry()
