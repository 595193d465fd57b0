"""Test charts/data: it has the topics and rights that the code needs, never deletes data, and is watched."""

import copy
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from alerting import groups, outcomes, promtool
from rendering import CHARTS, REPOSITORY, Object, RenderError, merged_values, of_kind, render, validate, values_file
from whisperline_contracts.topics import Topic, topics
from whisperline_gateway.settings import Settings as Gateway
from whisperline_persistence.settings import Settings as Persistence
from whisperline_transcriber.settings import Settings as Transcriber

IDENTITY = "01234567-89ab-cdef-0123-456789abcdef"
BACKUP = {
    "enabled": True,
    "destinationPath": "https://account.blob.core.windows.net/backups",
    "azureWorkloadIdentity": {"clientId": IDENTITY},
}
TOLERATED = {"nodeSelector": {"pool": "data"}, "tolerations": [{"key": "data", "operator": "Exists"}]}
FAST = {"storage": {"class": "fast"}}
SECRET = {**BACKUP, "azureWorkloadIdentity": {"clientId": ""}, "secret": {"name": "store"}}
LATEST = {"enabled": True, "targetTime": "2026-01-31 12:00:00+00"}
SCENARIOS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "small": {"kafka": {"controllers": {"dedicated": False}}, "postgres": {"instances": 1, "synchronousStandbys": 0}},
    "placed": {"kafka": {"brokers": TOLERATED}, "postgres": TOLERATED},
    "classes": {"kafka": {"brokers": FAST, "controllers": FAST}, "postgres": {**FAST, "walStorage": {"class": "fast"}}},
    "backup": {"postgres": {"backup": BACKUP}},
    "backup by a secret": {"postgres": {"backup": SECRET}},
    "restore": {"postgres": {"backup": {**BACKUP, "serverName": "after"}, "restore": LATEST}},
    "own secrets": {"generatedSecrets": {"enabled": False}},
    "one role": {"postgres": {"serviceRole": {"passwordSecret": ""}}},
    "managed Kafka": {"kafka": {"enabled": False}},
    "managed PostgreSQL": {"postgres": {"enabled": False}},
    "unwatched": {"monitoring": {"enabled": False}},
    "Azure Monitor": {
        "monitoring": {"podMonitors": {"apiVersion": "azmonitoring.coreos.com/v1"}, "rules": {"enabled": False}}
    },
}
CASES = Path(__file__).parent / "alerts_data"
RENDERED = render("data")
RULES = {rule["alert"]: rule for group in groups(RENDERED) for rule in group["rules"]}


def named(objects: list[Object], kind: str, name: str) -> Object:
    return next(found for found in of_kind(objects, kind) if found["metadata"]["name"] == name)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_object_is_valid(scenario: str) -> None:
    """In every variant each object satisfies the schema of its operator."""
    validate(render("data", SCENARIOS[scenario]))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_holds_data_is_kept(scenario: str) -> None:
    """Neither Argo CD nor Helm deletes a broker, topic, user, database, backup or secret."""
    kinds = ("Kafka", "KafkaNodePool", "KafkaTopic", "KafkaUser", "Cluster", "ObjectStore", "ExternalSecret")
    objects = render("data", SCENARIOS[scenario])
    for found in of_kind(objects, *kinds):
        annotations = found["metadata"]["annotations"]
        assert annotations["argocd.argoproj.io/sync-options"] == "Prune=false,Delete=false"
        assert annotations["helm.sh/resource-policy"] == "keep"
    for pool in of_kind(objects, "KafkaNodePool"):
        assert [volume["deleteClaim"] for volume in pool["spec"]["storage"]["volumes"]] == [False]


@pytest.mark.parametrize(("audio", "reply"), [(8, 8), (32, 16)])
def test_the_topics_are_those_of_the_code(audio: int, reply: int) -> None:
    """Name, partitions, replicas and settings of every topic are what the contracts say."""
    objects = render("data", {"kafka": {"partitions": {"audio": audio, "reply": reply}}})
    found = {
        topic["spec"]["topicName"]: (topic["spec"]["partitions"], topic["spec"]["replicas"], topic["spec"]["config"])
        for topic in of_kind(objects, "KafkaTopic")
    }

    def expected(topic: Topic) -> tuple[int, int, dict[str, str]]:
        return topic.partitions, topic.replication_factor, dict(topic.config)

    assert found == {topic.name: expected(topic) for topic in topics(audio, reply, 3)}


def test_the_brokers_take_what_the_topics_need() -> None:
    """A record is on two brokers before it is acknowledged, and the brokers accept the largest record of each topic."""
    config = named(RENDERED, "Kafka", "whisperline")["spec"]["kafka"]["config"]
    assert (config["default.replication.factor"], config["min.insync.replicas"]) == (3, 2)
    assert not config["unclean.leader.election.enable"]
    assert not config["auto.create.topics.enable"]
    largest = max(int(topic["spec"]["config"]["max.message.bytes"]) for topic in of_kind(RENDERED, "KafkaTopic"))
    assert config["message.max.bytes"] >= largest


def test_the_broker_is_the_one_that_is_tested_with() -> None:
    """The cluster runs the release of Apache Kafka that local/, and so every integration test, runs."""
    locked = (REPOSITORY / "local/whisperline_local/kafka.lock").read_text()
    assert f"kafka_2.13:{named(RENDERED, 'Kafka', 'whisperline')['spec']['kafka']['version']}" in locked


def test_users_read_as_the_groups_of_their_deployables() -> None:
    """A consumer group that a user may join is the one that its deployable joins by default."""
    groups_of = {
        user["metadata"]["name"]: [
            acl["resource"]["name"]
            for acl in user["spec"]["authorization"]["acls"]
            if acl["resource"]["type"] == "group"
        ]
        for user in of_kind(RENDERED, "KafkaUser")
    }
    assert "group" not in Gateway.model_fields
    assert groups_of == {
        "kafka-gateway": [],
        "kafka-transcriber": [Transcriber.model_fields["group"].default],
        "kafka-persistence": [Persistence.model_fields["group"].default],
    }


def test_users_are_those_of_whisperline() -> None:
    """The names, Secrets and authority that charts/whisperline expects by default are those that Strimzi makes."""
    values = values_file("charts/whisperline/values.yaml")
    users = {user["metadata"]["name"] for user in of_kind(RENDERED, "KafkaUser")}
    for deployable in ("gateway", "transcriber", "persistence"):
        assert values["kafka"]["users"][deployable] in users
        assert values["secrets"][f"{deployable}KafkaPassword"]["secretName"] in users
    assert values["kafka"]["ca"]["secretName"] == "whisperline-cluster-ca-cert"
    listener = named(RENDERED, "Kafka", "whisperline")["spec"]["kafka"]["listeners"][0]
    assert values["kafka"]["bootstrap"] == f"whisperline-kafka-bootstrap:{listener['port']}"
    assert values["kafka"]["saslMechanism"].lower() == listener["authentication"]["type"]
    made = {one["metadata"]["name"] for one in of_kind(RENDERED, "ExternalSecret")}
    assert values["secrets"]["tokenSecret"]["secretName"] in made


def test_only_those_who_need_it_reach_a_database() -> None:
    """The policies admit the processes that the design connects, by labels that their pods carry."""
    listener = named(RENDERED, "Kafka", "whisperline")["spec"]["kafka"]["listeners"][0]
    (broker,) = listener["networkPolicyPeers"]
    postgres = named(RENDERED, "NetworkPolicy", "whisperline-postgres")["spec"]["ingress"][0]["from"][0]
    pods = [
        found["spec"]["template"]["metadata"]["labels"]
        for found in of_kind(render("whisperline"), "Deployment", "StatefulSet", "Job")
    ]
    assert matched(broker["podSelector"], pods) == {"gateway", "transcriber", "persistence"}
    assert matched(postgres["podSelector"], pods) == {"gateway", "persistence", "migrations"}


def matched(selector: Object, pods: list[dict[str, str]]) -> set[str]:
    (expression,) = selector["matchExpressions"]
    assert expression["operator"] == "In"
    return {
        labels["app.kubernetes.io/component"]
        for labels in pods
        if selector["matchLabels"].items() <= labels.items() and labels[expression["key"]] in expression["values"]
    }


@pytest.mark.parametrize("file", ["event-hubs.yaml", "flexible-server.yaml"])
def test_whisperline_runs_on_managed_ones(file: str) -> None:
    """The values for Event Hubs and Flexible Server are values of charts/whisperline."""
    validate(render("whisperline", merged_values(values_file(f"charts/data/managed/{file}"))))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"kafka": {"brokrs": {}}}, "brokrs"),
        ({"kafka": {"version": "4"}}, "version"),
        ({"kafka": {"partitions": {"audio": 0, "reply": 8}}}, "audio"),
        ({"kafka": {"replicationFactor": 5}}, "replicationFactor 5 needs as many"),
        ({"kafka": {"minInSyncReplicas": 4}}, "minInSyncReplicas 4 is more"),
        ({"kafka": {"brokers": {"storage": {"size": "100"}}}}, "size"),
        ({"postgres": {"image": "postgres:latest"}}, "image"),
        ({"postgres": {"synchronousStandbys": 3}}, "synchronousStandbys 3 needs more"),
        ({"postgres": {"backup": {"enabled": True}}}, "destinationPath is needed"),
        ({"postgres": {"backup": {"enabled": True, "destinationPath": "s3://b"}}}, "clientId or secret.name"),
        ({"postgres": {"backup": {**BACKUP, "schedule": "daily"}}}, "schedule"),
        ({"postgres": {"backup": BACKUP, "restore": {"enabled": True}}}, "would be overwritten"),
        ({"postgres": {"resources": {"limits": {"memory": "plenty"}}}}, "memory"),
        ({"monitering": {}}, "monitering"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], why: str) -> None:
    """A misspelt key, an invalid value or a contradiction between two values is refused, and the message names it."""
    with pytest.raises(RenderError, match=why):
        render("data", values)


def test_a_misspelt_key_is_refused_everywhere() -> None:
    """No level of the values accepts an unknown key."""
    values = values_file("charts/data/values.yaml")
    free = {"labels", "parameters", "nodeSelector"}
    places = [path for path in maps(values) if not free & set(path)]
    assert len(places) > 25
    with helm_python.Chart.load(CHARTS / "data") as chart:
        for path in places:
            wrong: dict[str, Any] = {"mispelt": 1}
            for key in reversed(path):
                wrong = {key: wrong}
            with pytest.raises(RenderError, match="mispelt"):
                chart.validate_schema(merged_values(values, wrong))


def maps(values: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = [found for key, value in values.items() if isinstance(value, dict) for found in maps(value, (*path, key))]
    return [path, *inner]


def test_an_alert_fires_on_its_fault_and_is_silent_otherwise(tmp_path: Path) -> None:
    """promtool runs the cases of alerts_data/, a file for each alert."""
    (tmp_path / "check.yaml").write_text(yaml.safe_dump({"groups": groups(RENDERED)}))
    checked = promtool("check", "rules", "--lint-fatal", tmp_path / "check.yaml")
    assert checked.returncode == 0, checked.stdout
    assert outcomes(tmp_path, CASES.glob("*.yaml"), groups(RENDERED)) == dict.fromkeys(RULES, "SUCCESS")


@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1)"])
def test_the_cases_of_an_alert_notice_a_wrong_expression(expression: str, tmp_path: Path) -> None:
    """An alert that never fires, or always does, does not pass its cases."""
    changed = copy.deepcopy(groups(RENDERED))
    for group in changed:
        for rule in group["rules"]:
            rule["expr"] = expression
    found = outcomes(tmp_path, CASES.glob("*.yaml"), changed)
    assert set(found) == set(RULES)
    assert [alert for alert, said in found.items() if said == "SUCCESS"] == []


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_leads_to_its_runbook(alert: str) -> None:
    """The rule, its cases and its runbook are named like the alert, and the runbook says what to do."""
    assert {path.stem for path in (REPOSITORY / "charts/data/rules").iterdir()} == set(RULES)
    assert RULES[alert]["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{alert}.md")
    text = (REPOSITORY / "docs/runbooks" / f"{alert}.md").read_text()
    assert all(section in text for section in ("## Meaning", "## Impact", "## Diagnosis", "## Mitigation"))
