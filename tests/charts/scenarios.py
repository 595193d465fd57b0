"""Describe, as values, the ways in which charts/whisperline is installed, and render each of them."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from rendering import Object, merged_values, of_kind, pod_template, render, values_file

DIGEST = "sha256:" + "0123456789abcdef" * 4
ANYWHERE = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
IMAGES = ("gateway", "transcriber", "persistence", "triton")

SCENARIOS: dict[str, Mapping[str, Any]] = {
    "defaults": {},
    "digests": {
        "images": {name: {"tag": "0.1.0", "digest": DIGEST} for name in IMAGES} | {"pullSecrets": ["ghcr"]},
        "model": {"versions": [{"version": 3, "image": "ghcr.io/whisperline/model-tiny.en", "digest": DIGEST}]}
        | {"default": 3},
    },
    "canary": {
        "model": {
            "versions": [{"version": n, "image": "ghcr.io/whisperline/model-tiny.en", "tag": str(n)} for n in (3, 4)],
            "default": 3,
            "canary": {"version": 4, "sharePercent": 12.5},
        }
    },
    "processors": {"triton": {"gpus": 0, "slots": 8, "maxRequests": 64, "autoscaling": {"pendingRequests": 6}}},
    "scarce GPUs": {"triton": {"maxSurge": 0, "nodeSelector": {"sku": "gpu"}, "runtimeClassName": "nvidia"}},
    "Event Hubs": {
        "kafka": {
            "bootstrap": "whisperline.servicebus.windows.net:9093",
            "saslMechanism": "PLAIN",
            "users": dict.fromkeys(("gateway", "transcriber", "persistence", "topics"), "$ConnectionString"),
            "ca": {"secretName": ""},
            "createTopics": {"enabled": True},
        },
        "networkPolicies": {"kafka": ANYWHERE, "postgres": ANYWHERE},
    },
    "plain Kafka": {"kafka": {"bootstrap": "a:9092,b:9092", "securityProtocol": "PLAINTEXT"}},
    "Kafka with TLS alone": {"kafka": {"securityProtocol": "SSL", "createTopics": {"enabled": True}}},
    "key vault": {
        "secrets": {"source": "keyVault", "keyVault": {"name": "vault", "tenantId": "tenant", "clientId": "client"}},
        "kafka": {"createTopics": {"enabled": True}},
    },
    "external secrets": {"secrets": {"source": "externalSecret"}, "kafka": {"createTopics": {"enabled": True}}},
    "ingress": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "speech.example.org",
            "tlsSecretName": "speech-tls",
            "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
        }
    },
    "gateway API": {
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
            "hostnames": ["speech.example.org"],
        }
    },
    "fixed numbers": {"autoscaling": {"enabled": False}},
    "Azure Monitor": {
        "autoscaling": {
            "prometheus": {
                "address": "https://workspace.westeurope.prometheus.monitor.azure.com",
                "azure": {"enabled": True, "clientId": "client"},
            }
        },
        "monitoring": {
            "podMonitors": {"apiVersion": "azmonitoring.coreos.com/v1"},
            "rules": {"enabled": False},
        },
        "networkPolicies": {"prometheus": [{"namespaceSelector": {}}]},
    },
    "bare": {
        "autoscaling": {"enabled": False},
        "monitoring": {"podMonitors": {"enabled": False}, "rules": {"enabled": False}},
        "networkPolicies": {"enabled": False},
        "migrations": {"enabled": False},
    },
    "long drains": {
        name: {"drainSeconds": 120, "podAnnotations": {"a": "b"}, "priorityClassName": "high"} for name in IMAGES
    },
    "traces": {
        "telemetry": {
            "otlp": {"endpoint": "http://collector.tracing.svc:4317", "headers": {"X-Scope-OrgID": "speech"}},
            "sampler": "parentbased_traceidratio",
            "samplerArgument": "0.1",
            "resourceAttributes": {"deployment.environment.name": "test"},
        },
        "networkPolicies": {
            "otlp": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tracing"}}}],
            "otlpPort": 14317,
        },
    },
    "settings": {
        "gateway": {
            "settings": {"MAX_FRAME_BYTES": 2_097_152, "LOG_LEVEL": "DEBUG"},
            "allowedOrigins": ["https://a.org"],
        },
        "transcriber": {"settings": {"PARTIAL_CADENCE_MS": 500, "ROLLOUT_KEEP_S": 0.5}},
        "persistence": {"settings": {"BATCH_RECORDS": 1000}},
        "commonLabels": {"team": "speech"},
    },
}

ENVIRONMENTS = ("staging", "production")  # what Argo CD installs: charts/argocd/environments
SCENARIOS |= {
    name: merged_values(
        values_file(f"charts/argocd/environments/{name}.yaml"),
        values_file(f"charts/argocd/environments/{name}/whisperline.yaml"),
    )
    for name in ENVIRONMENTS
}


@cache
def rendered(scenario: str) -> list[Object]:
    """Return the objects of a scenario. Tests share them and must not change them."""
    return render("whisperline", SCENARIOS[scenario])


def varied(scenario: str, changes: Mapping[str, Any]) -> list[Object]:
    """Return the objects of a scenario with some values changed."""
    return render("whisperline", merged_values(SCENARIOS[scenario], changes))


def workloads(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Yield each object that makes pods, with the template of its pods."""
    for found in objects:
        template = pod_template(found)
        if template is not None:
            yield found, template


def containers(template: Object) -> list[Object]:
    """Return the containers of a pod, its init containers included."""
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def component(objects: list[Object], name: str) -> Object:
    """Return the workload of a component."""
    (found,) = (
        found
        for found in of_kind(objects, "Deployment", "StatefulSet", "Job")
        if found["metadata"]["labels"]["app.kubernetes.io/component"] == name
    )
    return found
