"""Job files that are scripts: they are run, on clusters that small programs play here."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from lab.launch.door import ROOT
from tests.launch.commands import STARTED, TINY, ends, place, wait_for_rows
from tests.launch.rendering import SLURM, admit_only_what_is_new, rendered


@pytest.fixture(autouse=True)
def ladder_is_admitted_before(monkeypatch):
    """By its own test."""
    admit_only_what_is_new(monkeypatch)


# Slurm


DOCUMENTED = set(  # sbatch(1) of Slurm 22.05
    """
    account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint
    container contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline
    delay-boot dependency distribution error exclude exclusive export export-file extra-node-info
    get-user-env gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres
    gres-flags hint hold ignore-pbs input job-name kill-on-invalid-dep licenses mail-type mail-user
    mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice no-kill no-requeue nodefile
    nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode
    output overcommit oversubscribe parsable partition power prefer priority profile propagate qos
    quiet reboot requeue reservation signal sockets-per-node spread-job switches test-only
    thread-spec threads-per-core time time-min tmp uid use-min-nodes verbose wait wait-all-nodes
    wckey wrap
    """.split()
)


def test_a_slurm_script_has_documented_directives_before_its_first_command(capsys, tmp_path):
    more = ("--hosts=2", "--gpus=8", "--jobs=4", "--account=a", "--partition=gpu")
    script = rendered(
        capsys, *SLURM, *more, "--time=12:00:00", "--sbatch=--qos=low", "--grace-s=90"
    )
    head = script.split("set -u")[0].splitlines()
    directives = dict(
        re.fullmatch(r"#SBATCH --([a-z-]+)=?(.*)", line).groups()
        for line in head
        if line.startswith("#SBATCH")
    )
    assert directives.keys() <= DOCUMENTED
    assert all(line.startswith("#") or not line for line in head), (
        "sbatch stops reading at a command"
    )
    wanted = {
        "nodes": "2",
        "ntasks-per-node": "1",
        "gpus-per-node": "8",
        "array": "0-3",
        "requeue": "",
        "signal": "B:TERM@90",
        "open-mode": "append",
        "qos": "low",
        "time": "12:00:00",
    }
    assert wanted.items() <= directives.items()
    assert subprocess.run(["bash", "-n"], input=script, text=True, timeout=10).returncode == 0


FAKE_SRUN = """\
#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""
FAKE_SCONTROL = """\
#!/usr/bin/env bash
echo "$@" >>"$SCONTROL_LOG"
"""


def slurm_world(folder, **programs):
    """A folder with the tools of a cluster, and the environment of a job on it."""
    tools = folder / "bin"
    tools.mkdir()
    for name, text in {"srun": FAKE_SRUN, "scontrol": FAKE_SCONTROL, **programs}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (folder / "scontrol.log").touch()
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "41",
        "SLURM_JOB_NAME": "ladder",
        "SCONTROL_LOG": str(folder / "scontrol.log"),
    }


def requeued(folder):
    return (folder / "scontrol.log").read_text().splitlines()


def test_a_slurm_script_puts_itself_back_by_its_exit_code(capsys, tmp_path):
    script = rendered(capsys, *SLURM, "--most-restarts=2", "--env=NOTE=two words")
    world = slurm_world(tmp_path, python='#!/usr/bin/env bash\necho "$NOTE"; exit "$CODE"\n')

    def leave(code):
        before = len(requeued(tmp_path))
        result = subprocess.run(
            ["bash", "-c", script],
            env={**world, "CODE": str(code)},
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert result.returncode == code and result.stdout == "two words\n", result.stderr
        return requeued(tmp_path)[before:]

    for _ in range(4):
        assert leave(75) == ["requeue 41"], "however often"
    assert leave(2) == [] and leave(3) == [] and leave(0) == []
    assert [leave(1), leave(134), leave(1)] == [["requeue 41"], ["requeue 41"], []]
    assert leave(75) == ["requeue 41"], "and after failures as well"
    assert leave(0) == []
    assert leave(1) == ["requeue 41"], "a run that ended begins to count anew"


def test_a_slurm_script_passes_sigterm_on_and_waits_for_the_save(capsys, tmp_path):
    script = rendered(capsys, *SLURM)
    saving = 'trap "sleep 0.5; exit 75" TERM; touch "$SLURM_SUBMIT_DIR/began"\n'
    saving += "for _ in $(seq 200); do sleep 0.05; done\n"
    world = slurm_world(tmp_path, python=f"#!/usr/bin/env bash\n{saving}")
    process = subprocess.Popen(["bash", "-c", script], env=world, stderr=subprocess.PIPE)
    STARTED.append(process)
    wait_for(tmp_path / "began")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 75 and requeued(tmp_path) == ["requeue 41"]


def wait_for(path, *, seconds=20):
    for _ in range(seconds * 20):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path}: not there after {seconds} s")


TINY_SWEEP = """\
def sweep():
    return [{"config": "configs/elm.py:s1", "name": "s1", "study": "tiny"}]
"""


@pytest.mark.slow
def test_a_sweep_by_slurm_is_interrupted_put_back_finished_and_bad_input_is_not(capsys, tmp_path):
    """The rendered script itself, with a srun that runs its command here."""
    sweep = tmp_path / "sweep.py"
    sweep.write_text(TINY_SWEEP)
    tiny = (*TINY, "--config.train.duration=1500 steps", *place(tmp_path))
    flags = ("--target=slurm", f"--workdir={tmp_path}/runs", "--name=tiny", *tiny)
    script = rendered(capsys, *flags, sweep=str(sweep))
    world = slurm_world(tmp_path)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    world = {**world, "SLURM_SUBMIT_DIR": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    process = subprocess.Popen(["bash", "-c", script], env=world)
    STARTED.append(process)
    wait_for_rows(tmp_path, 100)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75 and requeued(tmp_path) == ["requeue 41"]
    assert subprocess.run(["bash", "-c", script], env=world, timeout=240).returncode == 0
    assert [row["status"] for row in ends(tmp_path)["s1"]] == ["finished"]
    sweep.write_text(TINY_SWEEP.replace("elm.py:s1", "elm.py:s99"))
    assert subprocess.run(["bash", "-c", script], env=world, timeout=60).returncode == 2
    assert requeued(tmp_path) == ["requeue 41"]


# TPU VMs


GCLOUD = """\
#!/usr/bin/env bash
# A slice of two hosts, each a folder; what is run on them is run here.
shift 3  # compute tpus tpu-vm
verb=$1; slice=$2; shift 2
echo "$verb $*" >>"$WORLD/gcloud.log"
case "$verb" in
  create) mkdir -p "$WORLD/hosts/0" "$WORLD/hosts/1" && echo READY >"$WORLD/state" ;;
  delete) rm -rf "$WORLD/hosts" "$WORLD/state" ;;
  describe) cat "$WORLD/state" ;;
  scp) [ -f "$slice" ] && for host in 0 1; do cp "$slice" "$WORLD/hosts/$host/code.tar.gz"; done ;;
  ssh)
    [ "$(cat "$WORLD/state")" = READY ] || exit 255
    for word in "$@"; do case "$word" in --command=*) line="${word#--command=}" ;; esac; done
    for host in 0 1; do (cd "$WORLD/hosts/$host" && HOST=$host bash -c "$line") || exit 1; done
    ;;
esac
"""
COMMAND = 'bash "$WORLD/leave"'  # what each host runs; its nth start leaves with the nth code


@pytest.fixture
def tpu(capsys, tmp_path):
    """tpu(codes, verb): the rendered script's result on a slice that is played here."""
    flags = ("--target=tpu-vm", "--workdir=/runs", "--topology=v5p:4x4x8", "--zone=us-east5-a")
    script = rendered(capsys, *flags, "--most-restarts=1", "--spot")
    script = re.sub(r"(?m)^COMMAND='.*'$", f"COMMAND='{COMMAND}'", script, count=1)
    tools = tmp_path / "bin"
    tools.mkdir()
    nothing, git = "#!/usr/bin/env bash\n", '#!/usr/bin/env bash\ntar czf "${3#*=}" README.md\n'
    for name, text in {"gcloud": GCLOUD, "python3": nothing, "git": git}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    leave = """\
        began=$(cat "$WORLD/began-$HOST" 2>/dev/null || echo 0)
        echo $((began + 1)) >"$WORLD/began-$HOST"
        read -ra codes <"$WORLD/codes"; code=${codes[$began]}
        case $code in
          gone) [ "$HOST" = 1 ] && echo PREEMPTED >"$WORLD/state"; exit 137 ;;
          wait) trap "exit 75" TERM; for _ in $(seq 400); do sleep 0.05; done ;;
        esac
        exit $code
        """
    (tmp_path / "leave").write_text(textwrap.dedent(leave))
    paths = f"{tools}:{os.environ['PATH']}"
    world = {**os.environ, "WORLD": str(tmp_path), "POLL_S": "0.1", "PATH": paths}

    def call(verb, codes="0"):
        (tmp_path / "codes").write_text(codes + "\n")
        process = subprocess.Popen(
            ["bash", "-c", script, "ladder.sh", verb],
            env=world,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        STARTED.append(process)
        return process

    return call


def finish(process, code):
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, (out, err)
    return out + err


def starts(tmp_path):
    return [int((tmp_path / f"began-{host}").read_text()) for host in "01"]


@pytest.mark.parametrize(
    "codes, code, began",
    [
        ("75 3", 3, 2),
        pytest.param("75 75 75 0", 0, 4, marks=pytest.mark.slow),
        pytest.param("2", 2, 1, marks=pytest.mark.slow),
        pytest.param("1 75 0", 0, 3, marks=pytest.mark.slow),
        pytest.param("1 75 134", 134, 3, marks=pytest.mark.slow),
    ],
)
def test_tpu_vms_are_started_again_by_their_exit_codes(tpu, tmp_path, codes, code, began):
    assert "next:" in finish(tpu("create"), 0)
    made = (tmp_path / "gcloud.log").read_text().splitlines()[0]
    assert made.split() == [
        *("create", "--zone=us-east5-a", "--accelerator-type=v5p-256"),
        *("--version=v2-alpha-tpuv5", "--spot"),
    ]
    finish(tpu("run", codes), code)
    assert starts(tmp_path) == [began, began]


@pytest.mark.slow
def test_a_slice_that_is_taken_away_is_made_anew_and_goes_on(tpu, tmp_path):
    finish(tpu("create"), 0)
    assert "PREEMPTED; made anew" in finish(tpu("run", "gone 0"), 0)
    assert starts(tmp_path) == [2, 2]
    log = (tmp_path / "gcloud.log").read_text()
    assert log.count("create ") == 2 and log.count("delete ") == 1


@pytest.mark.slow
def test_a_stopped_slice_saves_and_is_not_started_again(tpu, tmp_path):
    finish(tpu("create"), 0)
    process = tpu("run", "wait")
    for host in "01":
        wait_for(tmp_path / f"began-{host}")
    assert "running\nrunning\n" in finish(tpu("status", "wait"), 0)
    finish(tpu("stop", "wait"), 0)
    assert "stopped by hand" in finish(process, 75)
    assert starts(tmp_path) == [1, 1]
    finish(tpu("delete"), 0)
    assert not (tmp_path / "hosts").exists()


@pytest.mark.parametrize(
    "flags, mounts",
    [
        (("--workdir=/runs", "--nfs=10.0.0.2:/lab"), "mount -t nfs -o hard 10.0.0.2:/lab /runs"),
        (("--workdir=gs://runs/first",), "gcsfuse --implicit-dirs runs /gcs/runs"),
        (("--workdir=/runs",), ""),
    ],
)
def test_the_script_for_tpu_vms_mounts_the_work_directory(capsys, flags, mounts):
    some = ("--topology=v5e:2x2", "--zone=us-east5-a", "--env=A=it's")
    script = rendered(capsys, "--target=tpu-vm", *some, *flags)
    assert subprocess.run(["bash", "-n"], input=script, text=True, timeout=10).returncode == 0
    functions, verb, _ = script.partition('case "${1:-}" in')
    asked = ["bash", "-c", f"{functions}mount_line"]
    line = subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout
    assert verb and mounts in line and bool(mounts) == bool(line)
    assert subprocess.run(["bash", "-n"], input=line, text=True, timeout=10).returncode == 0


def test_the_script_for_tpu_vms_says_what_is_missing(tmp_path):
    script = ROOT / "lab" / "launch" / "tpu.sh"
    kept = {"PATH": os.environ["PATH"], "NAME": "a"}
    run = {"capture_output": True, "text": True, "env": kept, "timeout": 10}
    result = subprocess.run(["bash", script, "create"], **run)
    assert result.returncode == 2 and "ZONE is not set" in result.stderr
    assert subprocess.run(["bash", script, "begin"], **run).returncode == 2
    assert "usage" in subprocess.run(["bash", script, "--help"], **run).stdout
