"""The script for Slurm: it is run, on a cluster that small programs play here."""

import os
import re
import signal
import subprocess
import sys

import pytest

from lab.launch.door import ROOT
from tests.launch.commands import STARTED, TINY, ends, place, wait_for_rows
from tests.launch.rendering import SLURM, admit_only_what_is_new, rendered, wait_for


@pytest.fixture(autouse=True)
def ladder_is_admitted_before(monkeypatch):
    """By its own test."""
    admit_only_what_is_new(monkeypatch)


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


PROGRAMS = {
    # A SIGTERM makes it kill its task, as "srun: forcing job termination" does (Slurm 22.05).
    "srun": """\
while [[ "$1" == --* ]]; do shift; done
"$@" &
task=$!
echo "$task" >"$WORLD/task"
trap 'kill -KILL "$task"' TERM INT
while kill -0 "$task" 2>/dev/null; do wait "$task"; done
wait "$task"
""",
    # The signal goes to all processes of the job's step, not to the script.
    "scancel": """\
[ "$*" = "--signal=TERM $JOB" ] || { echo "scancel $*: of another job" >&2; exit 1; }
tell() { for child in $(pgrep -P "$1"); do tell "$child"; done; kill -TERM "$1" 2>/dev/null; }
tell "$(cat "$WORLD/task")"
""",
    "squeue": """\
[ "${*: -2}" = "--job $JOB" ] && cat "$WORLD/state"
""",
    "scontrol": """\
echo "$@" >>"$WORLD/scontrol.log"
""",
}


def slurm_world(folder, **programs):
    """A folder with the tools of a cluster, and the environment of a job on it that runs."""
    tools = folder / "bin"
    tools.mkdir()
    for name, text in {**PROGRAMS, **programs}.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (tools / name).chmod(0o755)
    (folder / "scontrol.log").touch()
    (folder / "state").write_text("RUNNING None\n")
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "41",
        "SLURM_JOB_NAME": "ladder",
        "WORLD": str(folder),
        "JOB": "41",
    }


def requeued(folder):
    return (folder / "scontrol.log").read_text().splitlines()


def test_a_slurm_script_puts_itself_back_by_its_exit_code(capsys, tmp_path):
    script = rendered(capsys, *SLURM, "--most-restarts=2", "--env=NOTE=two words")
    world = slurm_world(tmp_path, python='echo "$NOTE"; exit "$CODE"\n')

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
    assert all(leave(code) == [] for code in (0, 1, 2, 3))
    assert [leave(4), leave(134), leave(4)] == [["requeue 41"], ["requeue 41"], []]
    assert leave(75) == ["requeue 41"], "and after failures as well"
    assert leave(0) == []
    assert leave(5) == ["requeue 41"], "a run that ended begins to count anew"


SAVES = """\
trap "sleep 0.5; touch $WORLD/saved; exit 75" TERM
touch "$WORLD/began"
for _ in $(seq 200); do sleep 0.05; done
"""


def signalled(script, world, tmp_path, *, number=signal.SIGTERM, state="RUNNING None"):
    """What a script that got a signal, and then has this state, says; its run has saved."""
    process = subprocess.Popen(
        ["env", "--default-signal=INT", "bash", "-c", script],  # a shell cannot undo "ignored"
        env=world,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    wait_for(tmp_path / "began")
    (tmp_path / "state").write_text(f"{state}\n")
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 75 and (tmp_path / "saved").exists(), said
    return said


def test_a_slurm_script_passes_sigterm_on_and_waits_for_the_save(capsys, tmp_path):
    world = slurm_world(tmp_path, python=SAVES)
    signalled(rendered(capsys, *SLURM), world, tmp_path)
    assert requeued(tmp_path) == ["requeue 41"]


def test_of_an_array_a_slurm_script_signals_and_requeues_its_own_task_alone(capsys, tmp_path):
    """One task's SLURM_JOB_ID is the array's, and stands for all tasks."""
    array = {"SLURM_JOB_ID": "40", "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1"}
    world = {**slurm_world(tmp_path, python=SAVES), **array, "JOB": "40_1"}
    signalled(rendered(capsys, *SLURM, "--jobs=2"), world, tmp_path)
    assert requeued(tmp_path) == ["requeue 40_1"]


@pytest.mark.parametrize(
    "state, back",
    [
        ("COMPLETING None", []),  # scancel 41; Slurm takes it back where it is asked to
        ("CANCELLED None", []),
        ("COMPLETING TimeLimit", ["requeue 41"]),  # the save took longer than --grace-s
        ("", ["requeue 41"]),  # no word from the controller
    ],
)
def test_a_cancelled_slurm_job_stays_out_of_the_queue(capsys, tmp_path, state, back):
    world = slurm_world(tmp_path, python=SAVES)
    said = signalled(rendered(capsys, *SLURM), world, tmp_path, state=state)
    assert requeued(tmp_path) == back
    assert ("cancelled; out of the queue" in said) == (not back)


def test_a_slurm_job_that_is_stopped_by_hand_saves_and_stays_out_of_the_queue(capsys, tmp_path):
    world = slurm_world(tmp_path, python=SAVES)
    said = signalled(rendered(capsys, *SLURM), world, tmp_path, number=signal.SIGINT)
    assert requeued(tmp_path) == [] and "stopped by hand" in said


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
    tiny += ("--config.execution.checkpoint_every_steps=100000",)
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
    assert list(tmp_path.rglob("checkpoints/[0-9]*/manifest.json")), "all are told, and it saves"
    assert subprocess.run(["bash", "-c", script], env=world, timeout=240).returncode == 0
    assert [row["status"] for row in ends(tmp_path)["s1"]] == ["finished"]
    sweep.write_text(TINY_SWEEP.replace("elm.py:s1", "elm.py:s99"))
    assert subprocess.run(["bash", "-c", script], env=world, timeout=60).returncode == 2
    assert requeued(tmp_path) == ["requeue 41"]
