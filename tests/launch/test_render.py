"""Job files for schedulers, each judged by its scheduler's own rules; the scripts are run."""

import json
import os
import pathlib
import re
import subprocess

import jsonschema
import pytest
import yaml

from lab.core.chips import CHIPS, Slices, parse_slices, shape_text
from lab.core.errors import ExitCode, LabError
from lab.launch.door import ROOT
from lab.launch.gke import usual_shape
from lab.launch.render import main
from tests.launch.commands import command, refused
from tests.launch.rendering import SLURM, SWEEP, admit_only_what_is_new, rendered

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((pathlib.Path(__file__).parent / "jobset_schema.json").read_text())
)
JOBSET = ("--target=jobset", "--workdir=/runs", "--nfs=10.0.0.2:/lab", "--image=registry/lab:1")


@pytest.fixture(autouse=True)
def ladder_is_admitted_before(monkeypatch):
    """By its own test."""
    admit_only_what_is_new(monkeypatch)


def jobsets(capsys, *flags):
    """The documents of a JobSet's file, each valid."""
    found = list(yaml.safe_load_all(rendered(capsys, *JOBSET, *flags)))
    for document in found:
        SCHEMA.validate(document)
    return found


def job_of(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


# JobSet


HOSTS = {  # Cloud TPU's documentation: shape -> hosts x chips of each
    "v4:2x2x1": (1, 4),
    "v4:4x4x4": (16, 4),
    "v5e:1x1": (1, 1),
    "v5e:4x8": (8, 4),
    "v5p:4x4x8": (32, 4),
    "v5p:16x16x24": (1536, 4),
    "v6e:16x16": (64, 4),
    "tpu7x:2x2x1": (1, 4),
    "tpu7x:4x4x4": (16, 4),
}
LABELS = {  # GKE's documentation
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "tpu7x": "tpu7x",
}


@pytest.mark.parametrize("topology", HOSTS)
def test_a_jobset_has_a_pod_for_each_host_of_the_slice(capsys, topology):
    (jobset,) = jobsets(capsys, f"--topology={topology}")
    job, (hosts, chips) = job_of(jobset), HOSTS[topology]
    pod = job["template"]["spec"]
    assert (job["parallelism"], job["completions"]) == (hosts, hosts)
    assert job["completionMode"] == "Indexed"
    assert pod["containers"][0]["resources"] == {"limits": {"google.com/tpu": chips}}
    generation, shape = topology.split(":")
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": LABELS[generation],
        "cloud.google.com/gke-tpu-topology": shape,
    }
    assert LABELS.keys() == CHIPS.keys()


def test_a_jobset_with_all_that_can_be_asked_for_is_valid(capsys):
    more = ("--slices=3", "--jobs=2", "--spot", "--queue=tpus", "--namespace=ml", "--env=A=b c")
    found = jobsets(capsys, "--topology=v5e:4x4", *more, "--config.train.batch_size=256")
    assert [one["metadata"]["name"] for one in found] == ["first-ladder-0", "first-ladder-1"]
    jobset = found[0]
    assert jobset["metadata"]["namespace"] == "ml"
    assert jobset["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "tpus"}
    assert jobset["spec"]["suspend"] is True, "Kueue starts it"
    assert jobset["spec"]["replicatedJobs"][0]["replicas"] == 3
    template = job_of(jobset)["template"]
    container = template["spec"]["containers"][0]
    assert template["spec"]["hostNetwork"]
    assert template["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert container["env"] == [{"name": "A", "value": "b c"}]
    assert container["volumeMounts"] == [{"name": "workdir", "mountPath": "/runs"}]
    nfs = {"server": "10.0.0.2", "path": "/lab"}
    assert template["spec"]["volumes"] == [{"name": "workdir", "nfs": nfs}]
    assert container["command"] == [
        *("python", "-m", "lab.launch.sweep", SWEEP, "--together"),
        "--config.train.batch_size=256",
        "--config.execution.workdir=/runs",
    ]


def test_a_jobset_of_one_host_may_keep_its_runs_in_a_bucket(capsys):
    (jobset,) = jobsets(capsys, "--topology=v5e:2x2", "--workdir=gs://lab-runs/first", "--nfs=")
    template = job_of(jobset)["template"]
    container = template["spec"]["containers"][0]
    assert template["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    assert container["volumeMounts"] == [{"name": "workdir", "mountPath": "/gcs/lab-runs"}]
    assert container["command"][-1] == "--config.execution.workdir=/gcs/lab-runs/first"
    assert "--together" not in container["command"], "one host"


def test_a_jobset_may_mount_a_volume_claim(capsys):
    flags = ("--topology=v6e:4x4", "--nfs=", "--volume-claim=filestore")
    (jobset,) = jobsets(capsys, *flags)
    pod = job_of(jobset)["template"]["spec"]
    claim = {"claimName": "filestore"}
    assert pod["volumes"] == [{"name": "workdir", "persistentVolumeClaim": claim}]
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == "/runs"
    assert "suspend" not in jobset["spec"] and "hostNetwork" not in pod


BROKEN = {
    "an unknown field": lambda one: one["spec"].update(replicatedJob=[]),
    "an unknown field deep inside": lambda one: job_of(one)["template"]["spec"].update(node="a"),
    "another action": lambda one: one["spec"]["failurePolicy"]["rules"][0].update(action="Restart"),
    "text for a number": lambda one: job_of(one).update(backoffLimit="0"),
    "a rule without its action": lambda one: one["spec"]["failurePolicy"]["rules"][0].pop("action"),
    "another version": lambda one: one.update(apiVersion="jobset.x-k8s.io/v1"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_schema_refuses(capsys, fault):
    (jobset,) = jobsets(capsys, "--topology=v5e:4x4")
    BROKEN[fault](jobset)
    with pytest.raises(jsonschema.ValidationError):
        SCHEMA.validate(jobset)


def action_of(jobset, *, exit_code, disrupted=False):
    """What the controllers do where a pod ends so: rules in order, Kubernetes' own messages."""
    job, policy = job_of(jobset), jobset["spec"]["failurePolicy"]
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
        assert rule["action"] == "FailJob"
        on = rule.get("onExitCodes")
        if on and exit_code in on["values"]:
            end = f"Container lab for pod ml/a-0 failed with exit code {exit_code}"
        elif disrupted and rule.get("onPodConditions"):
            end = "Pod ml/a-0 has condition DisruptionTarget"
        else:
            continue
        reason, message = "PodFailurePolicy", f"{end} matching FailJob rule at index {index}"
        break
    for rule in policy["rules"]:
        patterns = rule["onJobFailureMessagePatterns"]
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"  # the default; counted against maxRestarts


@pytest.mark.parametrize(
    "code, action",
    [
        (ExitCode.INTERRUPTED, "RestartJobSetAndIgnoreMaxRestarts"),
        (ExitCode.BAD_INPUT, "FailJobSet"),
        (ExitCode.DIVERGED, "FailJobSet"),
        (ExitCode.FAILURE, "FailJobSet"),
        *((code, "RestartJobSet") for code in (4, 5, 6, 22, 23, 32, 134, 137, 139, 175)),
    ],
)
def test_a_pods_exit_code_decides_what_a_jobset_does(capsys, code, action):
    (jobset,) = jobsets(capsys, "--topology=v5e:4x4", "--most-restarts=7")
    assert action_of(jobset, exit_code=int(code)) == action
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 7
    lost = action_of(jobset, exit_code=137, disrupted=True)
    assert lost == "RestartJobSetAndIgnoreMaxRestarts", "a node that is taken away is not counted"
    pod = job_of(jobset)["template"]["spec"]
    assert job_of(jobset)["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"


# SkyPilot


def sky_task(capsys, *flags):
    where = ("--workdir=/runs", "--nfs=10.0.0.2:/lab")
    return yaml.safe_load(rendered(capsys, "--target=skypilot", *where, *flags))


def test_a_skypilot_task_recovers_on_75_and_never_on_2_or_3(capsys):
    task = sky_task(capsys, "--topology=v5p:4x4x8", "--zone=us-east5-a", "--spot")
    resources = task["resources"]
    recovery = resources["job_recovery"]
    assert recovery["max_restarts_on_errors"] == 0, "it would count 2 and 3 as well"
    assert 75 in recovery["recover_on_exit_codes"]
    assert not {0, 1, 2, 3, 4} & set(recovery["recover_on_exit_codes"])
    assert resources["accelerators"] == "tpu-v5p-256", "v5p counts two cores a chip"
    assert resources["infra"] == "gcp/us-east5/us-east5-a" and resources["use_spot"] is True
    assert "mount -t nfs -o hard 10.0.0.2:/lab /runs" in task["run"]
    one = sky_task(capsys, "--topology=v5e:2x2", "--workdir=gs://lab-runs", "--nfs=")
    assert one["file_mounts"] == {"/gcs/lab-runs": {"source": "gs://lab-runs", "mode": "MOUNT"}}
    assert task["run"].endswith(
        f"lab.launch.sweep {SWEEP} --together --config.execution.workdir=/runs\n"
    )


@pytest.mark.parametrize("target", ["skypilot", "tpu-vm"])
@pytest.mark.parametrize("topology", ["v5e:2x4", "v6e:2x4"])
def test_eight_chips_of_a_flat_torus_are_one_virtual_machine(capsys, target, topology):
    """v5litepod-8 and v6e-8; GKE's usual machine type for this shape has four chips."""
    zone = ("--zone=us-west4-a",) if target == "tpu-vm" else ()
    of_target = (f"--target={target}", *zone)
    one = rendered(capsys, *of_target, f"--topology={topology}", "--workdir=gs://lab-runs")
    assert "--together" not in one, "and a bucket will do"
    larger = topology.replace("2x4", "4x4")
    assert "--together" in rendered(capsys, *of_target, f"--topology={larger}", "--workdir=/runs")
    (jobset,) = jobsets(capsys, f"--topology={topology}")
    assert job_of(jobset)["parallelism"] == 2, "pods of four chips"


USUAL = """
2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16 16x16x24
""".split()  # the table of Cloud TPU's "TPU v5p"


@pytest.mark.parametrize("shape", USUAL)
def test_the_usual_shape_of_a_number_of_chips_is_the_documented_one(shape):
    assert shape_text(usual_shape(parse_slices(f"v5p:{shape}"))) == shape


def test_a_rare_shape_has_another_usual_one():
    for shape, usual in {"4x4x16": "4x8x8", "4x16x16": "8x8x16", "4x4x12": "4x4x12"}.items():
        assert shape_text(usual_shape(parse_slices(f"v5p:{shape}"))) == usual
    for chip in CHIPS.values():
        for shape in chip.shapes:
            assert usual_shape(Slices(chip, shape)) == shape


SKYPILOT = os.environ.get("SKYPILOT_PYTHON", "")
ADMIT = "import sys, yaml, sky; sky.Task.from_yaml_config(yaml.safe_load(sys.stdin)).validate()"


@pytest.mark.skipif(not SKYPILOT, reason="SKYPILOT_PYTHON: a Python that has skypilot")
@pytest.mark.parametrize("topology", ["v4:2x2x4", "v5e:4x4", "v5p:4x4x8", "v6e:16x16"])
def test_skypilot_admits_the_task(capsys, topology, tmp_path):
    flags = (f"--topology={topology}", "--spot", "--env=A=b")
    task = sky_task(capsys, *flags)
    kept = {**os.environ, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "HOME": str(tmp_path)}

    def admit(task):
        return subprocess.run(
            [SKYPILOT, "-c", ADMIT],
            input=yaml.safe_dump(task),
            capture_output=True,
            text=True,
            env=kept,
            cwd=ROOT,
            timeout=120,
        )

    result = admit(task)
    assert result.returncode == 0, result.stderr
    task["resources"]["job_recover"] = task["resources"].pop("job_recovery")
    assert admit(task).returncode != 0, "an unknown field is refused"


# Refusals


BAD = {
    ("--topology=v5p:4x4x9",): "4x4x9",
    ("--topology=v9:2x2",): "v9:2x2",
    ("--topology=v5p:4x4x8", "--chips-per-host=8"): "--chips-per-host 8",
    ("--topology=v5p:4x4x8", "--name=First_Ladder"): "--name First_Ladder",
    ("--topology=v5p:4x4x8", "--workdir=runs"): "--workdir runs",
    ("--topology=v5p:4x4x8", "--workdir=gs://"): "--workdir gs://",
    ("--topology=v5p:4x4x8", "--workdir=gs://lab-runs", "--nfs="): "locks",
    ("--topology=v5p:2x2x1", "--workdir=gs://lab-runs"): "--nfs",
    ("--topology=v5p:4x4x8", "--nfs=10.0.0.2"): "--nfs 10.0.0.2",
    ("--topology=v5p:4x4x8", "--jobs=0"): "--jobs 0",
    ("--topology=v5p:4x4x8", "--slices=0"): "--slices 0",
    ("--topology=v5p:4x4x8", "--grace-s=0"): "--grace-s 0",
    ("--topology=v5p:4x4x8", "--env=A"): "--env A",
    ("--topology=v5p:4x4x8", "--env=A-B=1"): "--env A-B=1",
    ("--topology=v5p:4x4x8", "--env=\u00e9=1"): "--env \u00e9=1",
    ("--topology=v5p:4x4x8", "--env=A=1\nB=2"): "--env 'A=1\\nB=2'",
    ("--topology=v5p:4x4x8", "--namespace=My NS"): "--namespace My NS",
    ("--topology=v5p:4x4x8", "--namespace=a.b"): "--namespace a.b",
    ("--topology=v5p:4x4x8", "--queue=-a"): "--queue -a",
    ("--topology=v5p:4x4x8", "--nfs=", "--volume-claim=A"): "--volume-claim A",
    ("--topology=v5p:4x4x8", "--image=a\u2028b"): "--image 'a\\u2028b'",
    ("--topology=v5p:4x4x8", "--config.study=a\rb"): "--config.study 'a\\rb'",
    ("--topology=v5p:4x4x8", "--partition=gpu"): "--partition",
    ("--topology=v5p:4x4x8", "--volume-claim=a"): "--volume-claim",
    ("--topology=v5p:4x4x8", "--image="): "--image",
    ("--topology=v5p:4x4x8", "--config.optimiser.beta1=1"): '"optimizer"',
    (): "--topology",
    ("--target=slurm",): "--image",
    ("--target=tpu-vm", "--topology=tpu7x:2x2x1"): "--image",
}


@pytest.mark.parametrize("flags", BAD, ids=" ".join)
def test_a_bad_flag_is_named(flags):
    with pytest.raises(LabError) as error:
        main([SWEEP, *JOBSET, *flags])
    assert BAD[flags] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "flags, word",
    [
        (("--target=slurm", "--workdir=gs://lab-runs"), "--workdir gs://lab-runs"),
        (("--target=slurm", "--workdir=/runs", "--sbatch=qos"), "--sbatch qos"),
        (
            ("--target=slurm", "--workdir=/runs", "--sbatch=--qos=a\nrm x"),
            "--sbatch '--qos=a\\nrm x'",
        ),
        (("--target=slurm", "--workdir=/runs", "--account=a\nrm x"), "--account 'a\\nrm x'"),
        (("--target=slurm", "--workdir=/runs", "--time=1 # x"), "--time 1 # x"),
        (("--target=skypilot", "--workdir=/runs", "--topology=v5p:4x4x16"), "is 4x8x8"),
        (("--target=tpu-vm", "--workdir=/runs", "--topology=v5e:4x4"), "--zone"),
        (("--target=tpu-vm", "--workdir=/runs", "--zone=a", "--topology=tpu7x:2x2x1"), "tpu7x"),
        (("--target=skypilot", "--workdir=/runs", "--topology=tpu7x:2x2x1"), "tpu7x"),
        (("--target=skypilot", "--workdir=/runs"), "--topology"),
    ],
)
def test_a_flag_that_a_target_can_not_serve_is_named(flags, word):
    with pytest.raises(LabError) as error:
        main([SWEEP, *flags])
    assert word in str(error.value)


def test_the_command_writes_a_file_and_says_what_comes_next(tmp_path):
    out = tmp_path / "ladder.sbatch"
    result = command("-m", "lab.launch.render", SWEEP, *SLURM, "--jobs=2", f"--out={out}")
    assert result.returncode == 0, result.stderr
    assert f"next: sbatch {out}" in result.stdout and "#SBATCH" in out.read_text()
    missing = command("-m", "lab.launch.render", "no_such.py", *SLURM)
    refused(missing, "no_such.py", "no such file")
