"""The manifests for a cluster: valid for each supported version of Kubernetes, closed down, true to the rest."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.metrics.prometheus import ALERTS, promtool
from tests.stack import ROOT
from worker import GRACE

DIRECTORY = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((DIRECTORY / "kustomization.yaml").read_text())
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
VERSIONS = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]

Manifest = dict[str, Any]


def _manifests() -> list[Manifest]:
    return [
        manifest
        for name in KUSTOMIZATION["resources"]
        for manifest in yaml.safe_load_all((DIRECTORY / name).read_text())
    ]


def _one(kind: str, name: str) -> Manifest:
    [found] = [each for each in _manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return deepcopy(found)


WORKLOADS = [("Job", "fastbell-migrate"), ("Deployment", "fastbell-api"), ("Deployment", "fastbell-worker")]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_manifest_is_valid(version: str) -> None:
    for manifest in _manifests():
        kubernetes_validate.validate(manifest, version, strict=True)
    assert {each["kind"] for each in _manifests()} == {
        *("Namespace", "ServiceAccount", "Job", "Deployment", "Service"),
        *("PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"),
    }


def test_a_field_that_is_none_is_noticed() -> None:
    worker = _one("Deployment", "fastbell-worker")
    worker["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(worker, VERSIONS[-1], strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which has kustomize in it, is not installed")
def test_an_overlay_as_on_the_page_sets_image_and_settings_and_all_of_it_is_valid(tmp_path: Path) -> None:
    [image] = set(re.findall(r"edit set image (\w+)=registry\.example\.com", PAGE))
    [settings, behavior] = re.findall(r"edit add configmap ([\w-]+) --behavior=(\w+)", PAGE)[0]
    overlay = {
        "resources": [os.path.relpath(DIRECTORY, tmp_path)],
        "images": [{"name": image, "newName": "ours.example/fastbell", "digest": f"sha256:{64 * 'a'}"}],
        "configMapGenerator": [
            {"name": settings, "behavior": behavior, "literals": ["PUBLIC_URL=https://ours.example"]}
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))

    built = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    manifests = list(yaml.safe_load_all(built.stdout))

    for manifest in manifests:
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    pods = [each["spec"]["template"]["spec"] for each in manifests if each["kind"] in {"Job", "Deployment"}]
    [map_of_settings] = [each for each in manifests if each["kind"] == "ConfigMap"]
    images = {container["image"] for pod in pods for container in pod["containers"]}
    assert images == {f"ours.example/fastbell@sha256:{64 * 'a'}"}
    assert map_of_settings["data"]["PUBLIC_URL"] == "https://ours.example"
    assert map_of_settings["data"]["LOG_FORMAT"] == "json"
    assert len(pods) == len(WORKLOADS)


def test_every_file_is_used() -> None:
    used = {*KUSTOMIZATION["resources"], *KUSTOMIZATION["configMapGenerator"][0]["envs"], "kustomization.yaml"}
    assert {path.name for path in DIRECTORY.iterdir()} == used


@pytest.mark.parametrize(("kind", "name"), WORKLOADS)
def test_a_pod_is_restricted_and_bounded(kind: str, name: str) -> None:
    assert list(_faults(_one(kind, name))) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda pod: pod["securityContext"].pop("runAsNonRoot"), "may run as root"),
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "no seccomp profile"),
        (lambda pod: pod["containers"][0]["securityContext"]["capabilities"].pop("drop"), "keeps capabilities"),
        (lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"), "may gain privileges"),
        (lambda pod: pod["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"), "writes into its image"),
        (lambda pod: pod["containers"][0]["resources"].pop("limits"), "no limit of memory"),
        (lambda pod: pod["containers"][0].update(image="fastbell:latest"), "image fastbell:latest"),
        (
            lambda pod: pod["containers"][0]["env"].append({"name": "X_SECRET", "value": "abc"}),
            "unknown setting X_SECRET",
        ),
        (lambda pod: pod.pop("automountServiceAccountToken"), "has a token of Kubernetes"),
        (lambda pod: pod.pop("enableServiceLinks"), "takes the names of services for settings"),
        (lambda pod: pod.update(terminationGracePeriodSeconds=30), "is killed before its sends are through"),
    ],
)
def test_a_pod_that_is_not_is_noticed(spoil: Callable[[Manifest], Any], fault: str) -> None:
    worker = _one("Deployment", "fastbell-worker")
    spoil(worker["spec"]["template"]["spec"])

    assert list(_faults(worker)) == [fault]


def test_each_secret_is_on_the_page_with_the_command_that_makes_it() -> None:
    names = set(re.findall(r"secret(?:Name|KeyRef|Ref): \{?(?:name: )?([\w-]+)", _text())) | set(
        re.findall(r"secretName: ([\w-]+)", _text())
    )
    made = set(re.findall(r"create secret generic ([\w-]+)", PAGE))

    assert (
        names
        == made
        == {
            *("fastbell-database", "fastbell-auth", "fastbell-temporal", "fastbell-temporal-certificates"),
            *("fastbell-providers", "fastbell-provider-files"),
        }
    )


@pytest.mark.parametrize("kind", ["api", "worker"])
def test_files_of_apps_are_where_the_page_says(kind: str) -> None:
    pod = _one("Deployment", f"fastbell-{kind}")["spec"]["template"]["spec"]
    mounted = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    given = {each["name"]: each["configMap"] for each in pod["volumes"] if "configMap" in each}

    assert given == {name: {"name": f"fastbell-{name}", "optional": True} for name in ("apps", "presentations")}
    for name in given:
        assert f"{mounted[name]}/" in PAGE
        assert f"create configmap fastbell-{name} --from-file=" in PAGE


def test_files_in_secrets_are_where_the_page_says() -> None:
    for kind, name in WORKLOADS:
        pod = _one(kind, name)["spec"]["template"]["spec"]
        mounted = {each["name"]: each["mountPath"] for each in pod["containers"][0].get("volumeMounts", [])}
        secrets = {each["secret"]["secretName"]: each for each in pod["volumes"] if "secret" in each}

        database = secrets["fastbell-database"]
        assert database["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]  # and no address of the owner
        assert mounted[database["name"]] == "/run/database"
        if kind == "Deployment":
            assert mounted[secrets["fastbell-temporal-certificates"]["name"]] == "/run/temporal"
    for path in ("/run/database/ca.crt", "/run/temporal/ca.crt", "/run/temporal/payload-keys"):
        assert f"={path}" in PAGE
        assert f"--from-file={path.rpartition('/')[2]}" in PAGE


def test_settings_are_settings_and_hold_no_secret() -> None:
    lines = (DIRECTORY / "settings.env").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines}

    assert names <= _settings()
    assert not [name for name in names if re.search("SECRET|PASSWORD|KEY|DATABASE_URL", name)]


def test_what_scales_has_a_budget_and_leaves_one_running() -> None:
    for component in ("api", "worker"):
        scaler = _one("HorizontalPodAutoscaler", f"fastbell-{component}")["spec"]
        budget = _one("PodDisruptionBudget", f"fastbell-{component}")["spec"]
        workload = _one("Deployment", f"fastbell-{component}")["spec"]

        assert scaler["scaleTargetRef"]["name"] == f"fastbell-{component}"
        assert scaler["minReplicas"] > budget["maxUnavailable"]
        assert "replicas" not in workload  # or each change would undo what the scaler chose
        assert budget["selector"] == workload["selector"]


def test_the_metrics_that_scale_workers_are_on_the_page_and_come_from_what_workers_tell() -> None:
    metrics = _one("HorizontalPodAutoscaler", "fastbell-worker")["spec"]["metrics"]
    names = {each[each["type"].lower()]["metric"]["name"] for each in metrics}
    [rules] = [
        block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "seriesQuery" in block
    ]  # of prometheus-adapter
    read = yaml.safe_load(rules)

    assert {rule["name"]["as"] for rule in [*read["rules"], *read["externalRules"]]} == names
    told = (ROOT / "fleet" / "signals.py").read_text()
    assert "overdue_pushes" in told
    assert "fastbell_fleet_overdue_pushes" in read["externalRules"][0]["seriesQuery"]
    assert "fastbell_fleet_behind_gate_pushes" in read["externalRules"][0]["metricsQuery"]
    assert "behind_gate_pushes" in told
    assert "temporal_worker_task_slots_used" in read["rules"][0]["seriesQuery"]
    for matcher in ('worker_type="ActivityWorker"', 'task_queue=~"push-.+"'):  # the adapter repeats none by itself
        assert matcher in read["rules"][0]["metricsQuery"]


def test_prometheus_finds_the_pods_under_the_names_that_alerts_know(tmp_path: Path) -> None:
    [config] = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "scrape_configs" in block]
    known = re.sub(r" +kubernetes_sd_configs:.*\n", "", config)  # Debian builds its promtool without them
    (tmp_path / "prometheus.yml").write_text(known)
    jobs = {job["job_name"]: job for job in yaml.safe_load(config)["scrape_configs"]}

    assert jobs.keys() == set(re.findall(r'job="([\w-]+)"', ALERTS.read_text()))
    for name, job in jobs.items():
        pods = _one("Deployment", name)["spec"]["template"]
        [kept, *added] = job["relabel_configs"]
        assert kept["regex"] == pods["metadata"]["labels"]["app.kubernetes.io/component"]
        assert {each["target_label"] for each in added} == {"namespace", "pod"}  # what the adapter's rules ask for
        assert len(pods["spec"]["containers"][0]["ports"]) == 1  # each port is a target
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


def _text() -> str:
    return "\n".join((DIRECTORY / name).read_text() for name in KUSTOMIZATION["resources"])


def _settings() -> set[str]:
    return set(re.findall(r"^#([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


def _faults(workload: Manifest) -> Iterator[str]:
    """Say what is wrong with a workload: the restricted standard of pod security, and rules of our own."""
    pod = workload["spec"]["template"]["spec"]
    context = pod["securityContext"]
    if not (context.get("runAsNonRoot") and context.get("runAsUser") == 10001):
        yield "may run as root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "has a token of Kubernetes"
    if pod.get("enableServiceLinks") is not False:
        yield "takes the names of services for settings"
    if any({"secret", "configMap", "emptyDir"}.isdisjoint(volume) for volume in pod.get("volumes", [])):
        yield "mounts more than secrets"
    for container in pod["containers"]:
        yield from _container_faults(container)
    if workload["metadata"]["name"] == "fastbell-worker" and timedelta(
        seconds=pod.get("terminationGracePeriodSeconds", 30)
    ) < GRACE + timedelta(seconds=10):
        yield "is killed before its sends are through"


def _container_faults(container: Manifest) -> Iterator[str]:
    context = container["securityContext"]
    if context.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if context["capabilities"] != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if not context.get("readOnlyRootFilesystem"):
        yield "writes into its image"
    if "memory" not in container["resources"].get("limits", {}):
        yield "no limit of memory"
    if container["image"] != KUSTOMIZATION["images"][0]["name"]:
        yield f"image {container['image']}"
    for variable in container["env"]:
        if variable["name"] not in _settings():
            yield f"unknown setting {variable['name']}"
        if variable["name"] == "DATABASE_URL" and "value" in variable:
            yield "a password in the manifest"
