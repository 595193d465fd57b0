"""Test that what terraform/ repeats agrees with the rest: topics, service accounts, nodes, variables."""

import re
from pathlib import Path
from typing import Any

import hcl2
import pytest
import rendering
import yaml
from configuration import ROOT, ROOTS, Body, files, labelled
from whisperline_contracts.topics import topics

AZURE = ROOT / "terraform" / "azure"
AUDIO, REPLY = 31, 17  # two primes, so that one is not taken for the other
HOUR_MS = 3_600_000

by_root = pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)


def hubs() -> dict[str, tuple[int, int, bool]]:
    """Return the partitions, the retention in hours and the compaction of each hub in event_hubs.tf."""
    line = re.compile(r'"([\w.]+)"\s+= \{ partitions = (\S+), retention_hours = (\d+), compacted = (\w+) \}')
    counts = {"var.event_hubs.audio_partitions": AUDIO, "var.event_hubs.reply_partitions": REPLY}
    found = line.findall((AZURE / "event_hubs.tf").read_text())
    return {
        name: (counts.get(count) or int(count), int(hours), compacted == "true")
        for name, count, hours, compacted in found
    }


def test_event_hubs_are_the_topics() -> None:
    """Each topic has one hub with its partitions, retention and clean-up policy, and there are no other hubs."""
    expected = {
        topic.name: (
            topic.partitions,
            int(topic.config.get("retention.ms", 0)) // HOUR_MS,
            topic.config.get("cleanup.policy") == "compact",
        )
        for topic in topics(AUDIO, REPLY)
    }
    assert hubs() == expected


@by_root
def test_every_variable_says_what_it_is(root: Path) -> None:
    """Every variable has a type and a description, and a validation names it if its value can be wrong."""
    variables = dict(labelled(files(root), "variable"))
    assert variables
    assert [name for name, body in variables.items() if not {"type", "description"} <= set(body)] == []
    free = {"tags", "github_environments"}
    assert {name for name, body in variables.items() if "validation" not in body} <= free


@by_root
def test_every_output_says_what_it_is_for(root: Path) -> None:
    """Every output has a description."""
    assert [name for name, body in labelled(files(root), "output") if "description" not in body] == []


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_an_environment_sets_only_what_is_there(environment: str) -> None:
    """An environment's file sets existing variables only, and all that have no default."""
    given = set(hcl2.loads((AZURE / "environments" / f"{environment}.tfvars").read_text())) - {
        "__comments__",
        "__inline_comments__",
    }
    variables = dict(labelled(files(AZURE), "variable"))
    assert given <= set(variables)
    assert {name for name, body in variables.items() if "default" not in body} <= given


def service_accounts(purpose: str) -> set[str]:
    """Return the default ServiceAccounts of one identity."""
    variables = (AZURE / "variables.tf").read_text()
    block = re.findall(rf"^    {purpose}\s+= optional\(set\(string\), \[(.*?)\]", variables, re.MULTILINE | re.DOTALL)[
        0
    ]
    return set(re.findall(r'"([^"]+)"', block))


def of_kind(chart: str, kind: str, values: dict[str, Any]) -> set[str]:
    """Return the names of a chart's objects of one kind, in its namespace."""
    return {
        f"whisperline/{found['metadata']['name']}" for found in rendering.render(chart, values) if found["kind"] == kind
    }


def platform() -> Body:
    """Return the upstream charts of charts/argocd."""
    return yaml.safe_load((ROOT / "charts/argocd/values.yaml").read_text())["platform"]  # type: ignore[no-any-return]


def test_who_reads_secrets_is_there() -> None:
    """Exactly the chart's accounts that mount secrets, and the operator, may read the vault."""
    values = {
        "secrets": {"source": "keyVault", "keyVault": {"name": "kv", "tenantId": "t", "clientId": "c"}},
        "kafka": {"createTopics": {"enabled": True}},
    }
    mounting = of_kind("whisperline", "SecretProviderClass", values)
    operator = f"{platform()['external-secrets']['namespace']}/external-secrets"
    assert service_accounts("secrets") == mounting | {operator}
    assert mounting <= of_kind("whisperline", "ServiceAccount", values)


def test_who_backs_up_and_who_queries_is_there() -> None:
    """The accounts of CloudNativePG (named after its cluster) and of KEDA (keda-operator) have their identities."""
    assert service_accounts("backups") == of_kind("data", "Cluster", {})
    assert service_accounts("metrics") == {f"{platform()['keda']['namespace']}/keda-operator"}


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_triton_selects_the_label_of_gpu_nodes(environment: str) -> None:
    """Triton selects the label of GPU nodes, so that other pools do not count as places for it."""
    label = re.findall(r'node_labels\s+= \{ (\w+) = "(\w+)" \}', (AZURE / "cluster.tf").read_text())
    values = rendering.values_file(f"charts/argocd/environments/{environment}/whisperline.yaml")
    assert values["triton"]["nodeSelector"] == dict(label)


def test_triton_and_its_driver_stand_the_taint_of_gpu_nodes() -> None:
    """Triton's pods and NVIDIA's device plugin tolerate the taint of the GPU pool."""
    taint = re.findall(r'node_taints\s+= \["(\w+)=(\w+):(\w+)"\]', (AZURE / "cluster.tf").read_text())[0]
    wanted = {"key": taint[0], "operator": "Equal", "value": taint[1], "effect": taint[2]}
    triton = next(
        found
        for found in rendering.render("whisperline", {})
        if found["metadata"]["name"] == "whisperline-triton" and "spec" in found and "template" in found["spec"]
    )
    assert wanted in triton["spec"]["template"]["spec"]["tolerations"]
    assert wanted in platform()["nvidia-device-plugin"]["values"]["tolerations"]
