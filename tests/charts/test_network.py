"""Test the NetworkPolicies of charts/whisperline: they allow the connections of the design and no others."""

from typing import Any

import pytest
from rendering import Object, of_kind
from scenarios import SCENARIOS, rendered, workloads

EVERY = pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "bare"])
KAFKA, POSTGRES, DNS = ("kafka", 9093), ("postgres", 5432), ("dns", 53)
ARROWS = {
    "gateway": ({("ingress", 8080), ("prometheus", 8080)}, {KAFKA, POSTGRES, DNS}),
    "transcriber": ({("prometheus", 8120)}, {KAFKA, ("triton", 8001), DNS}),
    "persistence": ({("prometheus", 8130)}, {KAFKA, POSTGRES, DNS}),
    "triton": ({("transcriber", 8001), ("prometheus", 8002)}, set()),
    "migrations": (set(), {POSTGRES, DNS}),
    "topics": (set(), {KAFKA, DNS}),
}
NAMES = {
    "ingress": "ingress",
    "monitoring": "prometheus",
    "kube-system": "dns",
    "tracing": "collector",
    "whisperline-postgres": "postgres",
    "whisperline": "kafka",
}


def who(peer: dict[str, Any]) -> str:
    """Return what the design calls a peer in the default values."""
    labels = (peer.get("podSelector") or peer["namespaceSelector"])["matchLabels"]
    if "app.kubernetes.io/component" in labels:
        return str(labels["app.kubernetes.io/component"])
    return NAMES[next(iter(labels.values()))]


def arrows(rules: list[Object], side: str) -> set[tuple[str, int]]:
    """Return the peers at the other end of rules, each with its port."""
    return {(who(peer), port["port"]) for rule in rules for peer in rule[side] for port in rule["ports"]}


def test_the_arrows_are_those_of_the_design() -> None:
    """Every component may connect to, and be reached by, exactly the peers of the design."""
    objects = rendered("external secrets")
    found = {
        policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: (
            arrows(policy["spec"].get("ingress", []), "from"),
            arrows(policy["spec"].get("egress", []), "to"),
        )
        for policy in of_kind(objects, "NetworkPolicy")
        if not policy["metadata"]["name"].endswith("-default-deny")
    }
    assert found == ARROWS


def test_spans_may_leave_for_the_collector() -> None:
    """With an endpoint the four traced components may connect to the collector, and Triton to nothing else but DNS."""
    for scenario, wanted in (
        ("defaults", set()),
        ("traces", {"gateway", "transcriber", "persistence", "triton"}),
    ):
        egress = {
            policy["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component"): arrows(
                policy["spec"].get("egress", []), "to"
            )
            for policy in of_kind(rendered(scenario), "NetworkPolicy")
        }
        assert {name for name, to in egress.items() if ("collector", 14317) in to} == wanted
    assert egress["triton"] == {("collector", 14317), DNS}


@EVERY
def test_everything_else_is_denied_to_every_pod(scenario: str) -> None:
    """Each pod is chosen by two policies: one that allows nothing, and one of its component."""
    policies = of_kind(rendered(scenario), "NetworkPolicy")
    for _, template in workloads(rendered(scenario)):
        labels = template["metadata"]["labels"].items()
        chosen = [
            policy["spec"] for policy in policies if policy["spec"]["podSelector"]["matchLabels"].items() <= labels
        ]
        deny = [spec for spec in chosen if "ingress" not in spec and "egress" not in spec]
        assert len(chosen) == 2
        assert len(deny) == 1
        assert all(spec["policyTypes"] == ["Ingress", "Egress"] for spec in chosen)


def test_no_rule_is_open_to_anybody() -> None:
    """Every rule names peers and ports; without them it would allow everything."""
    for policy in of_kind(rendered("defaults"), "NetworkPolicy"):
        for side, rules in (("from", policy["spec"].get("ingress", [])), ("to", policy["spec"].get("egress", []))):
            assert all(rule[side] and rule["ports"] for rule in rules)


def test_the_ports_of_kafka_are_those_of_its_addresses() -> None:
    """The policies allow the ports in kafka.bootstrap."""
    (policy,) = (
        found
        for found in of_kind(rendered("plain Kafka"), "NetworkPolicy")
        if found["metadata"]["name"].endswith("-persistence")
    )
    assert ("kafka", 9092) in arrows(policy["spec"]["egress"], "to")


def test_a_managed_kafka_is_an_address() -> None:
    """Event Hubs and Flexible Server, which are outside the cluster, are allowed as address ranges."""
    (policy,) = (
        found
        for found in of_kind(rendered("Event Hubs"), "NetworkPolicy")
        if found["metadata"]["name"].endswith("-persistence")
    )
    assert [rule["to"] for rule in policy["spec"]["egress"][:2]] == [[{"ipBlock": {"cidr": "10.0.0.0/8"}}]] * 2


def test_policies_and_pods_agree_on_ports() -> None:
    """Policies allow only ports that the pods open; another port would cut a pod off."""
    objects = rendered("defaults")
    for policy in of_kind(objects, "NetworkPolicy"):
        labels = policy["spec"]["podSelector"]["matchLabels"]
        allowed = {port["port"] for rule in policy["spec"].get("ingress", []) for port in rule["ports"]}
        for _, template in workloads(objects):
            if "app.kubernetes.io/component" in labels and labels.items() <= template["metadata"]["labels"].items():
                open_ = [port for container in template["spec"]["containers"] for port in container.get("ports", [])]
                assert allowed <= {port["containerPort"] for port in open_}
