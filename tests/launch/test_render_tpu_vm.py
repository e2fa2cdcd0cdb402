"""The script for TPU VMs: it is run, on slices that small programs play here."""

import os
import re
import subprocess
import textwrap
import time

import pytest

from lab.launch.door import ROOT
from tests.launch.commands import STARTED
from tests.launch.rendering import admit_only_what_is_new, rendered, wait_for


@pytest.fixture(autouse=True)
def ladder_is_admitted_before(monkeypatch):
    """By its own test."""
    admit_only_what_is_new(monkeypatch)


GCLOUD = """\
#!/usr/bin/env bash
# A slice of two hosts, each a folder; what is run on them is run here.
shift 3  # compute tpus tpu-vm
verb=$1; slice=$2; shift 2
echo "$verb $*" >>"$WORLD/gcloud.log"
failures=$(cat "$WORLD/fail-$verb" 2>/dev/null || echo 0) # so many calls of it fail
if [ "$failures" -gt 0 ]; then
  echo $((failures - 1)) >"$WORLD/fail-$verb"
  echo "ERROR: (gcloud.compute.tpus.tpu-vm.$verb) no connection" >&2
  exit 255
fi
case "$verb" in
  create)
    if [ -e "$WORLD/state" ]; then echo "ERROR: ALREADY_EXISTS: $slice" >&2; exit 1; fi
    mkdir -p "$WORLD/hosts/0" "$WORLD/hosts/1" && echo READY >"$WORLD/state"
    ;;
  delete) rm -rf "$WORLD/hosts" "$WORLD/state" ;;
  describe)
    if [ -e "$WORLD/state" ]; then cat "$WORLD/state"; else
      echo "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: $slice" >&2; exit 1
    fi
    ;;
  scp) [ -f "$slice" ] && for host in 0 1; do cp "$slice" "$WORLD/hosts/$host/code.tar.gz"; done ;;
  ssh)
    [ "$(cat "$WORLD/state")" = READY ] || exit 255
    for word in "$@"; do case "$word" in --command=*) line="${word#--command=}" ;; esac; done
    for host in 0 1; do
      if [ "$host" = 1 ] && [ -e "$WORLD/silent" ]; then exit 255; fi
      (cd "$WORLD/hosts/$host" && HOST=$host bash -c "$line") || exit 1
    done
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
    world["MOST_TRIES"] = "3"

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


def calls(tmp_path, verb):
    log = (tmp_path / "gcloud.log").read_text().splitlines()
    return [line for line in log if line.startswith(f"{verb} ")]


def starts(tmp_path):
    return [int((tmp_path / f"began-{host}").read_text()) for host in "01"]


def waiting(tpu, tmp_path):
    """A run whose command waits, when it has begun on both hosts."""
    process = tpu("run", "wait")
    for host in "01":
        wait_for(tmp_path / f"began-{host}")
    return process


@pytest.mark.parametrize(
    "codes, code, began",
    [
        ("75 3", 3, 2),
        pytest.param("75 75 75 0", 0, 4, marks=pytest.mark.slow),
        pytest.param("2", 2, 1, marks=pytest.mark.slow),
        pytest.param("1", 1, 1, marks=pytest.mark.slow),
        pytest.param("5 75 0", 0, 3, marks=pytest.mark.slow),
        pytest.param("5 75 134", 134, 3, marks=pytest.mark.slow),
    ],
)
def test_tpu_vms_are_started_again_by_their_exit_codes(tpu, tmp_path, codes, code, began):
    assert "next:" in finish(tpu("create"), 0)
    (made,) = calls(tmp_path, "create")
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
    assert len(calls(tmp_path, "create")) == 2 and len(calls(tmp_path, "delete")) == 1


def fail(tmp_path, verb, times):
    """Make gcloud fail at its next calls of a verb."""
    (tmp_path / f"fail-{verb}").write_text(str(times))


def test_an_install_that_fails_is_tried_again_on_the_slice_that_was_made(tpu, tmp_path):
    fail(tmp_path, "scp", 2)
    said = finish(tpu("create"), 0)
    assert "install_code failed (2 of 3)" in said and "next:" in said
    assert len(calls(tmp_path, "create")) == 1
    assert "ready" in finish(tpu("create"), 0), "the slice is there already"
    assert len(calls(tmp_path, "create")) == 1 and not calls(tmp_path, "delete")


def test_a_slice_on_which_nothing_can_be_installed_is_named_with_its_cost(tpu, tmp_path):
    fail(tmp_path, "scp", 99)
    said = finish(tpu("run"), 1)
    assert "install_code failed 3 times; the slice stands and costs: bash ladder.sh delete" in said
    assert len(calls(tmp_path, "create")) == 1 and len(calls(tmp_path, "scp")) == 3


def test_a_slice_is_asked_for_until_there_is_one(tpu, tmp_path):
    fail(tmp_path, "create", 4)
    said = finish(tpu("run"), 0)
    assert said.count("no slice yet") == 4 and starts(tmp_path) == [1, 1]


def test_hosts_that_do_not_answer_a_start_are_asked_again(tpu, tmp_path):
    finish(tpu("create"), 0)
    fail(tmp_path, "ssh", 2)
    assert "start failed (2 of 3)" in finish(tpu("run"), 0)
    fail(tmp_path, "ssh", 99)
    assert "start failed 3 times; the slice stands" in finish(tpu("run"), 1)
    assert len(calls(tmp_path, "create")) == 1 and not calls(tmp_path, "delete")


def test_a_slice_that_gcloud_can_not_see_is_not_given_back(tpu, tmp_path):
    """Where the network here is down, ssh and describe fail alike."""
    finish(tpu("create"), 0)
    process = waiting(tpu, tmp_path)
    fail(tmp_path, "describe", 3)
    fail(tmp_path, "ssh", 3)
    time.sleep(1)
    finish(tpu("stop", "wait"), 0)
    assert "stopped by hand" in finish(process, 75)
    assert len(calls(tmp_path, "create")) == 1 and not calls(tmp_path, "delete")


def test_what_some_hosts_say_is_no_outcome_where_others_are_silent(tpu, tmp_path):
    """gcloud gives the lines of those that it reached, and fails."""
    finish(tpu("create"), 0)
    process = waiting(tpu, tmp_path)
    (tmp_path / "silent").touch()
    time.sleep(0.5)
    (tmp_path / "hosts/0/lab-code/exit_code").write_text("0\n")
    time.sleep(0.5)
    assert process.poll() is None, "host 1 has not said that it is done"
    (tmp_path / "silent").unlink()
    finish(tpu("stop", "wait"), 0)
    assert "stopped by hand" in finish(process, 75)


def test_a_shape_that_is_not_the_usual_one_is_named_to_gcloud(capsys):
    def flags_of(topology):
        flags = ("--target=tpu-vm", "--workdir=/runs", "--zone=a", f"--topology={topology}")
        functions = rendered(capsys, *flags).partition('case "${1:-}" in')[0]
        asked = [
            "bash",
            "-c",
            f'{functions}\nstate() {{ :; }}; gcloud() {{ echo "$@"; }}; have_slice',
        ]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10)
        return [word for word in said.stdout.split() if word.startswith(("--acc", "--ty", "--to"))]

    assert flags_of("v5p:4x8x8") == ["--accelerator-type=v5p-512"]
    assert flags_of("v5p:4x4x16") == ["--type=v5p", "--topology=4x4x16"]
    assert flags_of("v4:4x4x32") == ["--type=v4", "--topology=4x4x32"]


@pytest.mark.slow
def test_a_stopped_slice_saves_and_is_not_started_again(tpu, tmp_path):
    finish(tpu("create"), 0)
    process = waiting(tpu, tmp_path)
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
