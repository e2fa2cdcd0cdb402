"""Leases between machines: killed holders, rivals, holders that stood still and wake up.

Machines are processes here that believe to be on different ones and do without the file lock.
"""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from lab.core.config import run_directory
from lab.core.errors import NotSaved
from lab.launch import claim
from lab.launch.claim import LEASE, LOCK, claimed, is_claimed
from lab.launch.door import ROOT, load_config
from lab.launch.lease import Lease, Watch, field, machine, read_lease, remove
from tests.launch.commands import (
    STARTED,
    TINY,
    command,
    environment,
    place,
    refused,
    rows_of,
    wait_for_rows,
)

ELSEWHERE = textwrap.dedent(
    """
    import pathlib, sys, time
    from lab.launch import claim, lease
    name, renew_s, expiry_s, *rest = sys.argv[1:]
    claim.machine = lease.machine = lambda: name
    claim._lock = lambda file: True  # no lock goes from one machine to the other
    claim.RENEW_S, claim.EXPIRY_S, claim._LOOK_S = float(renew_s), float(expiry_s), 0.05
    """
)


def elsewhere(name, script, *arguments, renew_s=0.1, expiry_s=1.0):
    """A process that takes itself to be on the machine of this name."""
    code = ELSEWHERE + textwrap.dedent(script)
    values = [name, renew_s, expiry_s, *arguments]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, values)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


HOLD = """
    checks = []
    with claim.claimed(pathlib.Path(rest[0]), on_claim=checks.append) as ours:
        print("held" if ours else "refused", flush=True)
        while ours:
            time.sleep(0.02)
            try:
                checks[0]()
            except claim.ClaimLost as error:
                print(f"lost: {error}", flush=True)
                break
"""


def owner_of(directory):
    return field(read_lease(directory / LEASE), "owner")


def test_a_lease_is_there_while_it_is_held_and_is_renewed(tmp_path):
    path = tmp_path / "lease"
    held = Lease(path, renew_s=0.05)
    assert held.take() and held.held()
    first = json.loads(read_lease(path))
    assert (first["owner"], first["pid"], first["machine"]) == (held.owner, os.getpid(), machine())
    assert not Lease(path).take(), "it is one's"
    for _ in range(100):
        if json.loads(read_lease(path))["beat"] >= first["beat"] + 3:
            break
        time.sleep(0.02)
    else:
        raise AssertionError("not renewed")
    held.release()
    assert list(tmp_path.iterdir()) == []


def test_what_is_watched_is_stale_when_it_does_not_change_by_ones_own_clock(tmp_path):
    now_s = [0.0]
    watch, path = Watch(lambda: now_s[0]), tmp_path / "lease"
    assert watch.unchanged_s(path, b"a") == 0.0
    now_s[0] = 40.0
    assert watch.unchanged_s(path, b"a") == 40.0
    assert watch.unchanged_s(path, b"b") == 0.0, "it changed, whatever its age"
    now_s[0] = 50.0
    assert watch.unchanged_s(path, b"b") == 10.0
    watch.forget(path)
    assert watch.unchanged_s(path, b"b") == 0.0


def test_a_rivals_lease_that_was_renamed_by_mistake_is_put_back(tmp_path):
    """Between the look and the rename a rival took over: the second look sees that."""
    path = tmp_path / "lease"
    path.write_text('{"owner": "rival"}')
    answers = [True, False]
    assert not remove(path, expected=lambda content: answers.pop(0))
    assert answers == [] and field(read_lease(path), "owner") == "rival"
    assert list(tmp_path.iterdir()) == [path]
    assert not remove(path, expected=lambda content: field(content, "owner") == "other")
    assert remove(path, expected=lambda content: field(content, "owner") == "rival")
    assert not remove(path, expected=lambda content: True), "there is none"


def test_a_holder_without_its_file_has_lost_it_and_takes_no_other_along(tmp_path):
    path = tmp_path / "lease"
    held = Lease(path, renew_s=0.05)
    assert held.take()
    remove(path, expected=lambda content: True)
    rival = Lease(path)
    assert rival.take()
    for _ in range(100):
        if not held.held():
            break
        time.sleep(0.02)
    assert not held.held()
    held.release()
    assert field(read_lease(path), "owner") == rival.owner and rival.held()
    rival.release()


def test_a_dead_holder_of_this_machine_is_followed_at_once_and_one_elsewhere_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(claim, "EXPIRY_S", 0.6)
    monkeypatch.setattr(claim, "_LOOK_S", 0.05)
    (tmp_path / LOCK).touch()
    lease = tmp_path / LEASE
    lease.write_text(json.dumps({"owner": "dead", "machine": machine()}))
    assert not is_claimed(tmp_path)
    with claimed(tmp_path) as ours:
        assert ours and owner_of(tmp_path) not in ("", "dead")
    assert not lease.exists()
    for content in (json.dumps({"owner": "dead", "machine": "another"}), ""):  # or just created
        lease.write_text(content)
        claim._watch.forget(lease)
        assert is_claimed(tmp_path)
        began_s = time.monotonic()
        with claimed(tmp_path) as ours:
            assert ours
        assert time.monotonic() - began_s >= 0.5


def test_a_living_holder_elsewhere_is_told_from_a_dead_one_by_its_changes(tmp_path):
    """Watched for longer than a lease lasts, and then killed."""
    holder = elsewhere("a", HOLD, tmp_path)
    assert holder.stdout.readline() == "held\n"
    for _ in range(3):
        rival = elsewhere("b", HOLD, tmp_path)
        assert rival.communicate(timeout=30)[0] == "refused\n"
    assert is_claimed(tmp_path), "seen from this machine as well"
    with claimed(tmp_path) as ours:
        assert not ours
    holder.kill()
    holder.communicate()
    rival = elsewhere("b", HOLD, tmp_path)
    assert rival.stdout.readline() == "held\n"
    rival.kill()
    rival.communicate()


def test_a_holder_that_stood_still_and_wakes_up_sees_its_follower_and_stops(tmp_path):
    holder = elsewhere("a", HOLD, tmp_path)
    assert holder.stdout.readline() == "held\n"
    first = owner_of(tmp_path)
    holder.send_signal(signal.SIGSTOP)
    rival = elsewhere("b", HOLD, tmp_path)
    assert rival.stdout.readline() == "held\n"
    second = owner_of(tmp_path)
    assert second != first
    holder.send_signal(signal.SIGCONT)
    out, err = holder.communicate(timeout=30)
    assert "another process took this run over" in out and str(tmp_path) in out, err
    assert holder.returncode == 0, err
    assert owner_of(tmp_path) == second, "the follower's file is untouched"
    assert rival.poll() is None
    rival.kill()
    rival.communicate()


RACE = """
    import random, threading
    folders = [pathlib.Path(rest[0]) / str(i) for i in range(50)]
    for folder in folders:
        claim.is_claimed(folder)  # begins to watch it
    print("watching", flush=True)
    begin_s = float(sys.stdin.readline())
    late = random.Random(name)  # either may be the first
    moments = [begin_s + 0.03 * index + 0.0002 * late.random() for index in range(50)]
    won = {}
    def race(index):  # who loses looks on for a while, and the next race is due
        time.sleep(max(0, moments[index] - time.time()))
        won[index] = claim._take(folders[index] / claim.LEASE)
    threads = [threading.Thread(target=race, args=(index,)) for index in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(*(index for index in range(50) if won[index] and won[index].held()), flush=True)
    sys.stdin.readline()
"""

HOLDERS = """
    import os
    from lab.launch.lease import Lease
    for index in range(50):
        if os.fork() == 0:
            folder = pathlib.Path(rest[0]) / str(index)
            folder.mkdir()
            (folder / claim.LOCK).touch()
            assert Lease(folder / claim.LEASE, renew_s=0.1).take()
            time.sleep(600)
    time.sleep(600)
"""


@pytest.mark.slow
def test_of_two_rivals_for_a_killed_holders_lease_one_wins_fifty_times(tmp_path):
    """Fifty holders die by SIGKILL; two processes race for each of their leases at one moment."""
    code = ELSEWHERE + textwrap.dedent(HOLDERS)
    arguments = [sys.executable, "-c", code, "a", "0.1", "1.0", str(tmp_path)]
    holders = subprocess.Popen(arguments, cwd=ROOT, env=environment(), start_new_session=True)
    STARTED.append(holders)
    try:
        wait_until(lambda: len([p for p in tmp_path.glob(f"*/{LEASE}") if p.stat().st_size]) == 50)
    finally:
        os.killpg(holders.pid, signal.SIGKILL)
        holders.wait()
    before = {path.parent.name: owner_of(path.parent) for path in tmp_path.glob(f"*/{LEASE}")}
    assert len(set(before.values())) == 50
    one_wins_each(tmp_path, stale_after_s=1.1)
    for name, dead in before.items():
        assert owner_of(tmp_path / name) not in ("", dead)


def test_of_two_rivals_for_a_lease_that_nobody_held_one_wins_fifty_times(tmp_path):
    for index in range(50):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / LOCK).touch()
    one_wins_each(tmp_path, stale_after_s=0.0)


def one_wins_each(folder, *, stale_after_s):
    """Let two processes on two machines race for the fifty leases."""
    rivals = [race(name, folder) for name in ("b", "c")]
    for rival in rivals:
        assert rival.stdout.readline() == "watching\n", rival.stderr.read()
    time.sleep(stale_after_s)  # none of them changes any more
    begin_s = time.time() + 0.1
    for rival in rivals:
        rival.stdin.write(f"{begin_s}\n")
        rival.stdin.flush()
    lines = [rival.stdout.readline() for rival in rivals]
    assert all(lines), [rival.communicate()[1] for rival in rivals if rival.poll()]
    won = [[int(word) for word in line.split()] for line in lines]
    assert sorted(won[0] + won[1]) == list(range(50)), won
    assert won[0] and won[1], "a race that one always wins is none"
    assert len(list(folder.glob("*/*"))) == 100, "a lock and a lease each, nothing left aside"
    for rival in rivals:
        rival.communicate("\n", timeout=30)


def race(name, folder):
    """A rival that waits for the moment on its standard input."""
    code = ELSEWHERE + textwrap.dedent(RACE)
    arguments = [sys.executable, "-c", code, name, "0.1", "1.0", str(folder)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    STARTED.append(process)
    return process


def wait_until(holds, *, seconds=30):
    for _ in range(seconds * 20):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"not so after {seconds} s")


TRAIN = """
    from lab.launch.door import leave
    from lab.launch.train import main
    sys.argv = ["train", *rest]
    leave(main)
"""


@pytest.mark.slow
def test_a_run_whose_trainer_stood_still_is_finished_elsewhere_and_left_by_it(tmp_path):
    """The record has every step once, by the two together; the first writes nothing more."""
    steps = 2000
    tiny = [word for word in TINY if "checkpoint" not in word]
    more = [f"--config.train.duration={steps} steps", *tiny, *place(tmp_path)]
    more += ["--config.execution.checkpoint_every_steps=100", "--config=configs/elm.py:s1"]
    holder = elsewhere("a", TRAIN, *more, renew_s=0.3, expiry_s=3.0)
    wait_for_rows(tmp_path, 150)
    holder.send_signal(signal.SIGSTOP)
    (record,) = tmp_path.glob("runs/*/*/record.jsonl")
    rival = elsewhere("b", TRAIN, *more, renew_s=0.3, expiry_s=3.0)
    out, err = rival.communicate(timeout=300)
    assert rival.returncode == 0, err
    holder.send_signal(signal.SIGCONT)
    _, err = holder.communicate(timeout=60)
    assert "took this run over" in err or "another process" in err, err
    assert holder.returncode == 2
    at = [row["step"] for row in rows_of(record) if row["kind"] == "train"]
    assert at == list(range(1, steps + 1))
    assert [row["kind"] for row in rows_of(record)].count("end") == 1


def test_who_is_refused_says_so_as_bad_input(tmp_path):
    config, tiny = "configs/elm.py:s1", [*TINY, *place(tmp_path)]
    overrides = dict(word.removeprefix("--config.").split("=", 1) for word in tiny)
    directory = run_directory(load_config(config, overrides))
    with claimed(directory) as ours:
        assert ours
        result = command("-m", "lab.launch.train", "--config", config, *tiny)
    refused(result, str(directory), "another process is training this run")


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_no_holder_elsewhere(tmp_path, monkeypatch, call):
    """Neither is it bad input, nor does it leave a lease that others would watch for a minute."""
    name, path = {"write": "pwrite", "fsync": "fsync"}[call], tmp_path / "run"

    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, name, full)
        with pytest.raises(NotSaved) as error, claimed(path):
            pass
    assert str(error.value) == f"{path / LEASE}: cannot be written: No space left on device"
    assert sorted(each.name for each in path.iterdir()) == [LOCK]
    assert not is_claimed(path)
    with claimed(path) as ours:
        assert ours


def test_a_disk_without_room_for_the_locks_file_is_named(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(claim, "open", lambda path, *_, **__: Full(path, "a+"), raising=False)
        with pytest.raises(NotSaved, match="claim.lock: cannot be written: No space"):
            with claimed(tmp_path):
                pass
    assert not is_claimed(tmp_path)


def test_another_error_of_a_first_write_is_a_rivals_word(tmp_path, monkeypatch):
    """On an object store the second of two creators hears so; the first one's lease stays."""
    path = tmp_path / "lease"

    def refuses(file, content, offset):
        path.write_text('{"owner": "rival"}')
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "pwrite", refuses)
    assert not Lease(path).take()
    assert field(read_lease(path), "owner") == "rival"
