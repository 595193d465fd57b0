"""Run Kubernetes' own API server and its store on loopback. It accepts what a cluster accepts, but runs no pods."""

import json
import ssl
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import Any

import httpx
import trustme
import yaml
from rendering import SCHEMAS, Object, label

TOKEN = "of-the-test"  # noqa: S105 - the server lives as long as its test
START_LIMIT_S = 180.0


class NotAccepted(Exception):
    """The API server refuses an object; the text is the server's."""


class Cluster:
    """Applies objects as Argo CD does: on the server, with unknown fields refused."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    def apply(self, found: Object, namespace: str, *, manager: str = "argocd-controller") -> Object:
        """Apply an object and return it as the server now has it. Raises `NotAccepted`."""
        options = {"fieldManager": manager, "fieldValidation": "Strict", "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self._answer(
            self._client.patch(
                self._path(found, namespace), params=options, headers=headers, content=json.dumps(found)
            ),
            found,
        )

    def get(self, found: Object, namespace: str) -> Object:
        """Read an object back. Raises `NotAccepted`."""
        return self._answer(self._client.get(self._path(found, namespace)), found)

    def admit(self, found: Object, namespace: str) -> Object:
        """Create an object as a dry run, admission included. Raises `NotAccepted`."""
        folder = self._path(found, namespace).rpartition("/")[0]
        options = {"dryRun": "All", "fieldValidation": "Strict"}
        return self._answer(self._client.post(folder, params=options, json=found), found)

    def define(self, definitions: Iterable[Object]) -> None:
        """Apply definitions of custom resources and return when they are served."""
        waiting = [self.apply(definition, "") for definition in definitions]
        deadline = time.monotonic() + START_LIMIT_S
        while waiting:
            waiting = [one for one in waiting if not _established(self.get(one, ""))]
            if waiting and time.monotonic() > deadline:
                raise TimeoutError(f"not served: {[label(one) for one in waiting]}")
            time.sleep(0.2)
        self._plurals.clear()

    def _path(self, found: Object, namespace: str) -> str:
        api, kind, name = found["apiVersion"], found["kind"], found["metadata"]["name"]
        plural, namespaced = self._plural(api, kind)
        folder = f"namespaces/{found['metadata'].get('namespace', namespace)}/" if namespaced else ""
        return f"{_root(api)}/{folder}{plural}/{name}"

    def _plural(self, api: str, kind: str) -> tuple[str, bool]:
        if (api, kind) not in self._plurals:
            answer = self._client.get(_root(api))
            for resource in answer.json().get("resources", []):
                if "/" not in resource["name"]:
                    self._plurals[api, resource["kind"]] = (resource["name"], resource["namespaced"])
        if (api, kind) not in self._plurals:
            raise NotAccepted(f"the server has no {kind} in {api}")
        return self._plurals[api, kind]

    def _answer(self, answer: httpx.Response, found: Object) -> Object:
        if answer.is_error:
            raise NotAccepted(f"{label(found)}: {answer.json().get('message', answer.text)}")
        result: Object = answer.json()
        return result


@contextmanager
def control_plane(programs: Path, folder: Path) -> Iterator[Cluster]:
    """Run etcd and kube-apiserver from `programs` with their data in `folder`, and stop both afterwards."""
    store, peer, port = _free_ports(3)
    authority = trustme.CA()
    etcd = _etcd(programs, folder, store, peer)
    server = _api_server(programs, folder, authority, store, port)
    with _running(etcd, folder / "etcd.log"), _running(server, folder / "kube-apiserver.log") as process:
        trust = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", headers=headers, verify=trust, timeout=60) as client:
            _wait(client, process, folder / "kube-apiserver.log")
            yield Cluster(client)


def module_definitions(folder: Path) -> list[Object]:
    """Read the definitions of custom resources from their projects' Go modules, where build.sh has put them."""
    return [yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.yaml"))]


def schema_definition(api: str, kind: str, like: str | None = None) -> Object:
    """Make the definition of a custom resource from its schema, or from that of the group `like`."""
    group, _, version = api.rpartition("/")
    schema = json.loads((SCHEMAS / (like or group) / f"{kind.lower()}_{version}.json").read_text())
    plural = kind.lower() + ("es" if kind.endswith("s") else "s")
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Without this annotation, the server refuses groups under Kubernetes' own domains.
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": _structural(schema)}}
            ],
        },
    }


def _structural(schema: Any) -> Any:
    """Undo what the catalog of schemas adds: closed objects, which the server closes itself, and unions of types."""
    if isinstance(schema, list):
        return [_structural(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string":
        return {"x-kubernetes-int-or-string": True}
    return {
        key: {name: _structural(entry) for name, entry in value.items()} if key == "properties" else _structural(value)
        for key, value in schema.items()
        if not (key == "additionalProperties" and value is False)
    }


def _established(definition: Object) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions)


def _root(api: str) -> str:
    return f"/apis/{api}" if "/" in api else f"/api/{api}"


def _etcd(programs: Path, folder: Path, port: int, peer: int) -> list[str]:
    client, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    return [
        str(programs / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={other}",
        f"--initial-advertise-peer-urls={other}",
        f"--initial-cluster=default={other}",
        "--unsafe-no-fsync",
    ]


def _api_server(programs: Path, folder: Path, authority: trustme.CA, store: int, port: int) -> list[str]:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "tokens.csv").write_text(f"{TOKEN},tests,tests,system:masters\n")
    return [
        str(programs / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{store}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={folder / 'server.pem'}",
        f"--tls-private-key-file={folder / 'server.pem'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://127.0.0.1",
        f"--service-account-signing-key-file={folder / 'key.pem'}",
        f"--service-account-key-file={folder / 'key.pem'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",
    ]


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"kube-apiserver ended: {log.read_text()[-2000:]}")
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise TimeoutError(f"kube-apiserver is not ready: {log.read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
