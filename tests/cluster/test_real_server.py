"""What real API servers, webhooks and controllers do, each with how the launcher meets it.

The tests are in the order of these facts, which were seen on kube-apiserver 1.36 with JobSet's controller, or read in
Kubeflow Trainer's source (2.3); `test_conformance.py` shows that the fake cluster behaves so:

1. Trainer's webhook refuses a TrainJob whose `runtimePatches[].manager` is not a domain-prefixed path.
2. Without a resource whose name contains "gpu", Trainer's torch plugin starts as many processes as CPUs are asked for.
3. A server that starts answers 403, then 503 and 429, for seconds; tokens are rotated, expire and are revoked.
4. A field that the server does not know is dropped with a warning, unless `fieldValidation=Strict` is asked for.
5. A Role names the Secrets and runtimes that an account may read; others are refused though they exist.
6. What keeps pods from being created is said in events of JobSet, Job, Trainer and the claims, and is lost with them.
7. Quotas, policies and webhooks refuse with 403 too; a deleted job stays until its finalizers are done.
10. In a TrainJob, transformers reports its progress to Trainer by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.kubernetes_api import TOKEN, FakeCluster, is_domain_prefixed_path
from support.scenarios import complete, fail, start, success

from ocrmem.cluster.checks import cluster_problems
from ocrmem.cluster.manifest import MANAGER, train_job
from ocrmem.cluster.pauses import Pauses
from ocrmem.config import RunConfig
from ocrmem.errors import ClusterError, TrainingError

Launch = Callable[..., dict[str, Any]]
Settings = Callable[..., RunConfig]
Play = Callable[[FakeCluster, str], None]


# 1. Managers of runtime patches.


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("ocrmem.io/launcher", True),
        ("trainer.kubeflow.org/kubeflow-sdk", True),
        ("ocrmem", False),
        ("ocrmem/", False),
        ("/launcher", False),
        ("Ocrmem.io/launcher", False),
        ("ocrmem.io/a b", False),
    ],
)
def test_trainers_rule_for_managers(name: str, valid: bool) -> None:
    assert is_domain_prefixed_path(name) is valid


def test_the_webhook_admits_our_manager_and_its_refusal_names_what_it_refuses(
    cluster: FakeCluster, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_domain_prefixed_path(MANAGER)
    monkeypatch.setattr("ocrmem.cluster.manifest.MANAGER", "ocrmem")
    with pytest.raises(ClusterError, match=r"admission rule .*runtimePatches\[0\]\.manager: Invalid value.*webhook"):
        launch()


# 2. Processes a node.


def torch_plugin(job: dict[str, Any]) -> dict[str, str]:
    """The variables that Kubeflow Trainer's torch plugin (pkg/runtime/framework/plugins/torch, 2.3) gives a pod."""
    trainer = job["spec"]["trainer"]
    limits = trainer["resourcesPerNode"]["limits"]
    processes = str(trainer.get("numProcPerNode", "auto"))
    if processes == "auto" and not any("gpu" in name.lower() for name in limits):
        processes = str(max(1, int(limits["cpu"])))
    return {"PET_NNODES": str(trainer["numNodes"]), "PET_NPROC_PER_NODE": processes, "PET_MASTER_PORT": "29500"}


PLACED = [
    ("CPU, as the dev overlay", {"gpus_per_node": 0, "cpu": "2"}, 1),
    ("MIG slices", {"gpu_resource": "nvidia.com/mig-3g.40gb", "gpus_per_node": 2, "cpu": "8"}, 2),
    ("eight GPUs", {"gpus_per_node": 8, "cpu": "64"}, 8),
    ("several CPU nodes", {"nodes": 3, "gpus_per_node": 0, "cpu": "4"}, 3),
    ("several GPU nodes", {"nodes": 2, "gpus_per_node": 4, "cpu": "16"}, 8),
]


@pytest.mark.parametrize(("values", "processes"), [case[1:] for case in PLACED], ids=[case[0] for case in PLACED])
def test_pods_start_as_many_processes_as_the_settings_count(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], processes: int
) -> None:
    from ocrmem.training.launch import check_placement, is_placed

    config = settings(f"train.processes={processes}", **values)
    for name, value in torch_plugin(train_job(config, "one")).items():
        monkeypatch.setenv(name, value)
    assert is_placed()
    check_placement(config)


# 3. A server that starts; tokens that are rotated, expire or are revoked.

START_UP = (403,) * 8 + (503,) * 4 + (429,) * 2


def test_a_server_that_restarts_during_a_run_is_survived(
    cluster: FakeCluster, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    def restarts(cluster: FakeCluster, job: str) -> None:
        (pod,) = start(cluster, job)
        cluster.log(pod, "step 1")
        cluster.wait_told("step 1")
        cluster.restart(*START_UP)
        cluster.wait(lambda: not cluster.start_up)
        cluster.log(pod, "step 2")
        complete(cluster, job, [pod])

    cluster.scenario = restarts
    assert launch()["state"] == "complete"
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert lines == ["step 1", "step 2"]


def test_a_server_that_is_still_starting_at_the_first_call_is_waited_for(cluster: FakeCluster, launch: Launch) -> None:
    cluster.scenario = success
    cluster.start_up = list(START_UP)
    assert launch()["state"] == "complete"


def test_a_right_that_is_missing_is_reported_at_once(cluster: FakeCluster, launch: Launch) -> None:
    cluster.forbidden = {("create", "trainjobs")}
    with pytest.raises(ClusterError, match="refuses create on trainjobs"):
        launch()
    assert cluster.called("create", "trainjobs") == 1
    assert cluster.clock.waits == []


def test_a_right_that_is_taken_away_is_reported_after_a_while(cluster: FakeCluster, launch: Launch) -> None:
    def taken(cluster: FakeCluster, job: str) -> None:
        start(cluster, job)
        cluster.wait_for_call("get", "pods/log")
        cluster.forbidden = {(verb, "pods") for verb in ("list", "watch")}
        cluster.drop_connections()
        cluster.wait_told("trying again")
        cluster.let_time_pass()

    cluster.scenario = taken
    with pytest.raises(ClusterError, match=r"refuses watch on pods .*k8s/base/rbac\.yaml"):
        launch()
    assert cluster.names("trainjobs") == ["one"]


def test_a_token_that_is_rotated_while_watches_are_open_is_read_again(cluster: FakeCluster, launch: Launch) -> None:
    def rotated(cluster: FakeCluster, job: str) -> None:
        pods = start(cluster, job)
        cluster.wait_for_call("watch", "pods")
        cluster.token = "the-next-token"  # the old one is revoked before the new one is there
        cluster.drop_connections()
        cluster.wait_told("trying again")
        file = Path(os.environ["KUBECONFIG"])
        file.write_text(file.read_text(encoding="utf-8").replace(TOKEN, cluster.token), encoding="utf-8")
        complete(cluster, job, pods)

    cluster.scenario = rotated
    assert launch()["state"] == "complete"


def test_a_token_that_stays_revoked_is_reported_and_the_job_continues(cluster: FakeCluster, launch: Launch) -> None:
    def revoked(cluster: FakeCluster, job: str) -> None:
        start(cluster, job)
        cluster.wait_for_call("watch", "pods")
        cluster.token = "another"
        cluster.drop_connections()
        cluster.wait_told("trying again")
        cluster.let_time_pass()

    cluster.scenario = revoked
    with pytest.raises(ClusterError, match=r"does not accept the credentials \(401\)"):
        launch()
    assert cluster.names("trainjobs") == ["one"]


# 4. Fields that the server does not know.

OLDER = [
    ("2.1", "TrainJob.spec.runtimePatches", "spec.runtimePatches"),
    (
        "2.2.1",
        "TrainJob.spec.runtimePatches.trainingRuntimeSpec.template.spec.replicatedJobs.template.spec.template.spec."
        "terminationGracePeriodSeconds",
        "terminationGracePeriodSeconds",
    ),
    ("none that we know", "ClusterTrainingRuntime.spec.template.spec.failurePolicy", "failurePolicy"),
]


@pytest.mark.parametrize(("lacks", "named"), [case[1:] for case in OLDER], ids=[case[0] for case in OLDER])
def test_preflight_names_each_field_that_an_older_trainer_lacks(
    cluster: FakeCluster, settings: Settings, pauses: Pauses, lacks: str, named: str
) -> None:
    cluster.unknown_fields = {lacks}
    (problem,) = cluster_problems(settings(), pauses)
    assert named in problem.message
    assert "2.3" in problem.remedy


def test_a_field_that_the_server_would_drop_is_refused(cluster: FakeCluster, launch: Launch) -> None:
    cluster.unknown_fields = {"TrainJob.spec.runtimePatches"}
    with pytest.raises(ClusterError, match=r'unknown field "spec\.runtimePatches".*Install Kubeflow Trainer 2\.3'):
        launch()
    assert cluster.names("trainjobs") == []


def test_what_the_server_warns_of_is_shown_once(cluster: FakeCluster, settings: Settings, pauses: Pauses) -> None:
    from ocrmem.cluster.api import Api
    from ocrmem.cluster.permissions import TRAINJOBS

    cluster.unknown_fields = {"TrainJob.spec.trainer.numProcPerNode"}
    config = settings()
    api = Api(config.kubernetes, pauses)
    for name in ("a", "b"):
        api.call(TRAINJOBS, "create", body=train_job(config, name))  # without asking for strictness
    assert cluster.told.count('warns: unknown field \\"spec.trainer.numProcPerNode\\"') == 1


# 5. Rights to look at Secrets and runtimes.


def test_what_the_role_does_not_name_is_left_unchecked_aloud(
    cluster: FakeCluster, settings: Settings, pauses: Pauses
) -> None:
    cluster.named_rights = True
    config = settings(image_pull_secrets=["registry"], secret_env=["HF_TOKEN=hub-login/token"], runtime="foo")
    assert cluster_problems(config, pauses) == []
    for name in ("secrets registry", "secrets hub-login", "clustertrainingruntimes foo"):
        assert f"{name} may not be read with this account" in cluster.told
    assert "--verb=get --resource=secrets --resource-name=hub-login" in cluster.told
    assert "Apply k8s/base" not in cluster.told


def test_in_another_namespace_no_file_is_named_that_grants_nothing_there(
    cluster: FakeCluster, settings: Settings, pauses: Pauses
) -> None:
    cluster.forbidden = {("create", "trainjobs")}
    problems = [
        problem for problem in cluster_problems(settings(namespace="team"), pauses) if "refuses" in str(problem)
    ]
    (problem,) = problems
    assert problem.remedy.startswith("k8s/base/rbac.yaml does not grant it; `kubectl create role")
    assert "-n team --verb=create --resource=trainjobs.trainer.kubeflow.org" in problem.remedy


def test_a_variable_of_another_secret_takes_the_place_of_the_listed_one(settings: Settings) -> None:
    job = train_job(settings(secret_env=["HF_TOKEN=hub-login/token"]), "one")
    found = [entry for entry in job["spec"]["trainer"]["env"] if entry["name"] == "HF_TOKEN"]
    assert found == [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub-login", "key": "token"}}}]


# 6. Why no pods appear.


def fails(kind: str, name: str, reason: str, message: str) -> Play:
    return lambda cluster, job: cluster.event(kind, name.format(job=job), reason, message)


NO_PODS = [
    ("JobSet", "{job}", "JobCreationFailed", "jobs.batch is forbidden: exceeded quota: team", "ResourceQuota"),
    ("JobSet", "{job}", "HeadlessServiceCreationFailed", "services is forbidden by a policy", "Service"),
    ("JobSet", "{job}", "PVCCreationFailed", "storageclass not found", "claim"),
    ("TrainJob", "{job}", "TrainJobResourcesCreationFailed", "TrainJob resources reconciliation failed", "runtime"),
    ("PersistentVolumeClaim", "ocrmem-output", "FailedBinding", "no storage class is set", "storage class"),
    ("PersistentVolumeClaim", "ocrmem-output", "ProvisioningFailed", "RWX is not supported", "access mode"),
    ("Job", "{job}-node-0", "FailedCreate", 'pods "one-node-0-0-x" is forbidden: violates PodSecurity', "Security"),
]


@pytest.mark.parametrize(
    ("kind", "name", "reason", "message", "remedy"), NO_PODS, ids=[case[2] + " " + case[0] for case in NO_PODS]
)
def test_what_keeps_pods_from_being_created_outranks_their_absence_and_is_kept(
    cluster: FakeCluster, launch: Launch, kind: str, name: str, reason: str, message: str, remedy: str
) -> None:
    def play(cluster: FakeCluster, job: str) -> None:
        cluster.clock.advance_and_be_seen(0)
        cluster.clock.advance_and_be_seen(590)
        fails(kind, name, reason, message)(cluster, job)
        cluster.job_condition(job, "Suspended", "Resumed", "TrainJob is resumed", status="False")
        cluster.wait_told(reason)
        cluster.let_time_pass()  # no pod for 600 s comes before a hindrance for as long

    cluster.scenario = play
    with pytest.raises(ClusterError) as caught:
        launch()
    (problem,) = caught.value.problems
    assert reason in problem.message
    assert "NoPods" not in problem.message
    assert remedy in problem.remedy
    said = problem.message[problem.message.index("what the cluster said") :]
    assert f"{reason}: " in said
    assert "TrainJob one: Suspended is False (Resumed: TrainJob is resumed)" in said
    cluster.wait(lambda: cluster.names("trainjobs") == [])
    assert "conditions, pods and events are in trainjob.json" in problem.message
    (failure,) = json.loads(Path("trainjob.json").read_text(encoding="utf-8"))["failures"]
    assert failure["verdict"]["reason"] == reason
    assert [entry["type"] for entry in failure["conditions"]] == ["Suspended"]
    (warning,) = failure["warnings"]
    assert (warning["kind"], warning["reason"], warning["message"]) == (kind, reason, message)


def test_what_explains_the_failure_of_a_job_that_is_kept_is_recorded_without_keys(
    cluster: FakeCluster, launch: Launch
) -> None:
    key = "hf_" + "a1B2" * 6

    def dies(cluster: FakeCluster, job: str) -> None:
        (pod,) = start(cluster, job)
        cluster.log(pod, "the last step")
        cluster.event("Pod", pod, "BackOff", f"cannot fetch https://me:word@hub.test with {key}")
        cluster.event("Pod", "of-another-job", "BackOff", "no business of ours")
        cluster.event("Pod", pod, "FailedScheduling", "the last event")
        cluster.wait_told("the last step")
        cluster.end_pod(pod, 1, message=f"refused {key}")
        fail(cluster, job)

    cluster.scenario = dies
    with pytest.raises(TrainingError, match=r"conditions, pods and events are in trainjob\.json"):
        launch()
    assert cluster.names("trainjobs") == ["one"]
    text = Path("trainjob.json").read_text(encoding="utf-8")
    assert key not in text
    assert "me:word" not in text
    (failure,) = json.loads(text)["failures"]
    assert failure["uid"] == cluster.get("trainjobs", "one")["metadata"]["uid"]
    assert failure["verdict"]["kind"] == "failed"
    assert {entry["type"] for entry in failure["conditions"] if entry["status"] == "True"} == {"Failed"}
    (pod,) = failure["pods"]
    assert pod["containerStatuses"][0]["state"]["terminated"]["exitCode"] == pod["exit_code"] == 1
    assert [entry["reason"] for entry in failure["warnings"]] == ["BackOff", "FailedScheduling"]
    assert failure["log"] == ["the last step"]


def test_a_record_that_cannot_be_written_does_not_hide_the_failure(cluster: FakeCluster, launch: Launch) -> None:
    cluster.scenario = fail
    Path("trainjob.json").mkdir()
    with pytest.raises(TrainingError, match=r"trainjob\.json, which was to hold .* cannot be written"):
        launch()


def test_a_refused_pod_of_another_name_each_time_is_reported_once(cluster: FakeCluster, launch: Launch) -> None:
    def tries(cluster: FakeCluster, job: str) -> None:
        for suffix in ("abcde", "fghij", "klmno"):
            message = f'Error creating: pods "{job}-node-0-0-{suffix}" is forbidden: exceeded quota: gpus'
            cluster.event("Job", f"{job}-node-0", "FailedCreate", message)
        cluster.event("Pod", f"{job}-node-0-0-zzzzz", "FailedScheduling", "the last event")
        cluster.wait_told("the last event")
        success(cluster, job)

    cluster.scenario = tries
    launch()
    assert cluster.told.count("FailedCreate") == 1


# 7. Admission, logs, deletion.

DENIALS = [
    ('trainjobs "one" is forbidden: exceeded quota: team, requested: count/trainjobs=1', "ResourceQuota"),
    ("ValidatingAdmissionPolicy 'no-latest' with binding 'x' denied request: no tag", "owner for an exception"),
    ('admission webhook "kyverno" denied the request: label cost-center is missing', "webhook names"),
]


@pytest.mark.parametrize(("said", "remedy"), DENIALS, ids=["quota", "policy", "webhook"])
def test_a_denial_by_an_admission_rule_is_no_missing_right(
    cluster: FakeCluster, launch: Launch, said: str, remedy: str
) -> None:
    cluster.denied = said
    with pytest.raises(ClusterError) as caught:
        launch()
    (problem,) = caught.value.problems
    assert problem.message.startswith("an admission rule of the cluster refuses create trainjobs (403: ")
    assert said in problem.message
    assert remedy in problem.remedy
    assert "rbac" not in str(problem)
    assert cluster.clock.waits == []


def test_a_deleted_job_is_gone_only_when_its_finalizers_are_done(cluster: FakeCluster, launch: Launch) -> None:
    cluster.finalizers_hang = True
    cluster.scenario = success
    launch()
    job = cluster.get("trainjobs", "one")
    cluster.delete_job("one")
    cluster.before = lambda call: setattr(cluster, "finalizers_hang", cluster.called("get", "trainjobs") < 5)
    assert not launch()["attached"]
    assert cluster.get("trainjobs", "one")["metadata"]["uid"] != job["metadata"]["uid"]


# 10. What a job reports about itself.


def test_progress_that_transformers_sends_to_trainer_is_shown_at_every_tenth(
    cluster: FakeCluster, launch: Launch
) -> None:
    def reports(cluster: FakeCluster, job: str) -> None:
        pods = start(cluster, job)
        cluster.wait_for_call("watch", "trainjobs")
        for percent, step, loss in ((4, 32, 3.1), (41, 328, 0.8), (42, 336, 0.7), (80, 640, 0.2)):
            found = cluster.get("trainjobs", job)
            metrics = {"loss": loss, "current_step": step, "total_steps": 800}
            found.setdefault("status", {})["trainerStatus"] = {
                "progressPercentage": percent,
                "estimatedRemainingSeconds": 720,
                "metrics": [{"name": key, "value": str(value)} for key, value in metrics.items()],
            }
            cluster.put("trainjobs", found)
        cluster.wait_told("80 % done")
        complete(cluster, job, pods)

    cluster.scenario = reports
    launch()
    lines = [line for line in cluster.told.splitlines() if "% done" in line]
    assert lines == [
        f"TrainJob one: {percent} % done, step {step} of 800, loss {loss}, about 12 min left"
        for percent, step, loss in ((41, 328, 0.8), (80, 640, 0.2))
    ]


def test_what_transformers_reports_is_what_the_launcher_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a TrainJob, transformers adds its KubeflowCallback by itself, although report_to is none."""
    from support.web import web
    from transformers import TrainerControl, TrainerState
    from transformers.integrations import KubeflowCallback

    from ocrmem.cluster.following import progress_line
    from ocrmem.training.arguments import AdapterTrainingArguments

    token = tmp_path / "token"
    token.write_text("a token", encoding="utf-8")
    with web() as server:
        server.answers["/status"] = (200, {}, {})
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", f"{server.url}/status")
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(token))
        arguments = AdapterTrainingArguments(output_dir=str(tmp_path), report_to="none")
        assert arguments.report_to == ["kubeflow"]
        callback = KubeflowCallback()
        monkeypatch.setattr(callback, "_MIN_UPDATE_INTERVAL", 0.0)
        state, control = TrainerState(max_steps=800, global_step=200), TrainerControl()
        callback.on_train_begin(arguments, state, control)
        callback.on_log(arguments, state, control, logs={"loss": 0.5})
        callback.on_step_end(arguments, state, control)
    line = progress_line(json.loads(server.sent[-1])["trainerStatus"])
    assert line.startswith("25 % done, step 200 of 800, loss 0.5")
