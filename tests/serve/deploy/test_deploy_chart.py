"""The Helm chart, rendered by Helm's own engine and held against Kubernetes' own schemas."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_tools import CHART, DEPLOY, call, parse_serve, python, read_yaml, serve_options

from openautoglm.core.version import __version__
from openautoglm.serve.wire.limits import Limits

PLAIN: dict[str, Any] = {"registry": {"existingSecret": "database"}}
FULL: dict[str, Any] = {
    "registry": {"url": "postgresql://user:word@db/models"},
    "models": [{"name": "reports", "bundle": "incoming/reports", "alias": "champion"},
               {"name": "pubs", "bundle": "pubs"}],
    "server": {"grpcPort": 8081, "otlp": "http://collector:4318/v1/traces", "extraArgs": ["--max-batch", "32"],
               "memoryBudget": "4GiB", "shutdownTimeoutSeconds": 90},
    "settings": {"OMP_NUM_THREADS": 4}, "imagePullSecrets": [{"name": "pull"}],
    "ingress": {"enabled": True, "host": "models.example.org", "tlsSecret": "tls", "className": "nginx"},
    "serviceMonitor": {"enabled": True, "keySecret": "metrics-key"},
    "networkPolicy": {"clients": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
                      "monitoring": [{"namespaceSelector": {}}], "database": [{"ipBlock": {"cidr": "10.0.0.5/32"}}],
                      "extraEgress": [{"ports": [{"port": 4318, "protocol": "TCP"}]}]},
    "podLabels": {"team": "a"}, "podAnnotations": {"note": "b"}, "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "x", "operator": "Exists"}], "priorityClassName": "high",
    "affinity": {"nodeAffinity": {}}, "service": {"annotations": {"a": "b"}}, "store": {"storageClassName": "nfs"},
    "serviceAccount": {"annotations": {"a": "b"}}}
FIXED: dict[str, Any] = {**PLAIN, "autoscaling": {"enabled": False}, "server": {"allowedHosts": ["models.example.org"]},
                         "store": {"existingClaim": "bundles"}, "networkPolicy": {"enabled": False},
                         "serviceAccount": {"create": False}, "podDisruptionBudget": {"enabled": False}}
pytestmark = pytest.mark.slow  # Helm takes half a minute
GOOD = {"plain": PLAIN, "full": FULL, "fixed": FIXED}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no registry": ({}, "give registry.existingSecret, or registry.url"),
    "a file of one machine": ({"registry": {"url": "sqlite:////tmp/x"}}, "/registry/url"),
    "a slip of the pen": ({**PLAIN, "sevrer": {}}, "sevrer"),
    "an unknown bound": ({**PLAIN, "limits": {"max_token": 5}}, "max_token"),
    "a bound that is none": ({**PLAIN, "limits": {"n": 0}}, "/limits/n"),
    "no TLS": ({**FULL, "ingress": {"enabled": True, "host": "a.org"}}, "keys must not travel without TLS"),
    "no host": ({**FULL, "ingress": {"enabled": True, "tlsSecret": "t"}}, "give ingress.host"),
    "an ingress that cannot reach it": ({**PLAIN, "ingress": FULL["ingress"]}, "networkPolicy.clients"),
    "nodes that cannot be drained": ({**PLAIN, "podDisruptionBudget": {"minAvailable": 3}}, "minAvailable"),
    "figures that are refused": ({**FULL, "server": {"allowedHosts": ["a.org"]}}, "allowedHosts"),
    "a path out of the store": ({**PLAIN, "models": [{"name": "m", "bundle": "../../etc"}]}, "/models/0/bundle"),
    "a port of root": ({**PLAIN, "server": {"port": 80}}, "/server/port")}


@lru_cache
def answer() -> dict[str, Any] | str:
    """What Helm makes of all values, or why it does not run."""
    if call(python(), "-c", "import helm_python, kubernetes_validate").returncode:
        return ""
    asked = {"chart": str(CHART), "values": [*GOOD.values(), *(values for values, _ in BAD.values())]}
    done = call(python(), Path(__file__).with_name("chart_program.py"), given=json.dumps(asked))
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def helm() -> dict[str, Any]:
    """What Helm makes of all values; asked once."""
    found = answer()
    if found == "":
        pytest.skip("there is no Helm here (make tools)")
    assert isinstance(found, dict), found
    return found


def documents(name: str) -> list[dict[str, Any]]:
    made = helm()["rendered"][list(GOOD).index(name)]
    assert "fault" not in made, made
    return [document for _, document in made["documents"]]


def one(name: str, kind: str) -> dict[str, Any]:
    [found] = [document for document in documents(name) if document["kind"] == kind]
    return found


def server(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod of the deployment, and its container."""
    pod = one(name, "Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    return pod, container


def test_helm_finds_no_fault() -> None:
    assert helm()["lint"]["errors"] == []
    assert [item["error"] for item in helm()["lint"]["messages"] if item["severity"] > 1] == []


@pytest.mark.parametrize("name", GOOD)
def test_kubernetes_would_take_it(name: str) -> None:
    made = helm()["rendered"][list(GOOD).index(name)]
    unknown = ["no schema: ServiceMonitor"] if name == "full" else []  # a resource of Prometheus's operator
    assert made["refused"] == unknown


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_work_is_refused_with_a_reason(name: str) -> None:
    made = helm()["rendered"][len(GOOD) + list(BAD).index(name)]
    assert BAD[name][1] in made.get("fault", "it was rendered")


def test_three_pods_and_more_under_load() -> None:
    assert one("fixed", "Deployment")["spec"]["replicas"] == 3
    assert "replicas" not in one("plain", "Deployment")["spec"]  # the autoscaler's
    scaler = one("plain", "HorizontalPodAutoscaler")["spec"]
    assert (scaler["minReplicas"], scaler["scaleTargetRef"]["name"]) == (3, "demo-open-autoglm")
    by = {metric["type"]: metric for metric in scaler["metrics"]}
    assert by["Resource"]["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    adapter = read_yaml(DEPLOY / "prometheus" / "adapter.yaml")["rules"]["custom"][0]
    assert by["Pods"]["pods"]["metric"]["name"] == adapter["name"]["as"]
    assert one("plain", "PodDisruptionBudget")["spec"]["minAvailable"] == 2


@pytest.mark.parametrize("name", GOOD)
def test_probes_and_the_time_to_end(name: str) -> None:
    pod, container = server(name)
    found = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["httpGet"]["path"] for kind, probe in found.items()} == {
        "startup": "/healthz", "liveness": "/healthz", "readiness": "/ready"}
    assert (found["liveness"]["periodSeconds"], found["readiness"]["periodSeconds"]) == (30, 10)
    assert found["readiness"]["timeoutSeconds"] > 5  # /ready itself may take so long for its token
    words = container["args"]
    shutdown = int(words[words.index("--shutdown-timeout") + 1])
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= before + shutdown + 10
    hosts = {item["value"] for probe in found.values() for item in probe["httpGet"].get("httpHeaders", [])}
    assert hosts == ({"models.example.org"} if name == "fixed" else set())


@pytest.mark.parametrize("name", GOOD)
def test_pods_may_do_little(name: str) -> None:
    image = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    user = re.findall(r"^USER (\d+):(\d+)$", image, re.MULTILINE)
    pods = [document["spec"]["template"]["spec"] for document in documents(name)
            if document["kind"] in ("Deployment", "Job")]
    assert len(pods) == 1 + (name == "full")
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        assert (str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["runAsGroup"])) == user[-1]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]}}
            assert container["resources"]["limits"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("name", GOOD)
def test_the_server_knows_its_options(name: str) -> None:
    words = server(name)[1]["args"]
    assert parse_serve(words) <= serve_options()
    assert words[words.index("--host") + 1] == "0.0.0.0"
    assert "--registry" in words  # which asks for keys


def test_the_registry_s_address_is_a_secret() -> None:
    text = json.dumps([document for document in documents("full") if document["kind"] != "Secret"])
    assert "word@db" not in text
    assert one("full", "Secret")["stringData"] == {"registry-url": FULL["registry"]["url"]}
    [variable] = server("full")[1]["env"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "demo-open-autoglm", "key": "registry-url"}
    [variable] = server("plain")[1]["env"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "database", "key": "registry-url"}
    assert [document for document in documents("plain") if document["kind"] == "Secret"] == []


def test_limits_are_those_of_the_server() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert schema["properties"]["limits"]["properties"].keys() == Limits.model_fields.keys()
    for name in GOOD:
        [limits] = [document["data"]["limits.yaml"] for document in documents(name)
                    if "limits.yaml" in document.get("data", {})]
        assert Limits.model_validate(yaml.safe_load(limits)).n == 4


def test_models_are_registered_one_after_the_other() -> None:
    steps = one("full", "Job")["spec"]["template"]["spec"]["initContainers"]
    assert [step["args"] for step in steps] == [
        ["models", "register", "/var/lib/openautoglm/bundles/incoming/reports", "--name", "reports",
         "--alias", "champion"],
        ["models", "register", "/var/lib/openautoglm/bundles/pubs", "--name", "pubs"]]


def test_the_network_is_closed_but_for_what_is_named() -> None:
    rules = one("full", "NetworkPolicy")["spec"]
    assert rules["policyTypes"] == ["Ingress", "Egress"]
    ports = {port["port"] for rule in rules["egress"] for port in rule["ports"]}
    assert ports == {53, 5432, 4318}
    assert {port["port"] for rule in rules["ingress"] for port in rule["ports"]} == {"http", "grpc"}
    [tls] = one("full", "Ingress")["spec"]["tls"]
    assert tls == {"hosts": ["models.example.org"], "secretName": "tls"}


def test_versions_and_notes() -> None:
    facts = read_yaml(CHART / "Chart.yaml")
    assert facts["appVersion"] == __version__
    assert server("plain")[1]["image"] == f"open-autoglm:{__version__}"
    assert f"ARG VERSION={__version__}" in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert "keys create" in helm()["rendered"][0]["notes"]
