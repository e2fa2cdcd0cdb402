"""The watchdog: who died, who is stopped, who holds up the others, and when nobody is to blame."""

import errno
import fcntl
import json
import os
import threading
import time

import pytest

from lab.core.errors import ExitCode, LabError
from lab.launch import watchdog
from lab.launch.watchdog import Watchdog, read_beat
from lab.train.loop import Doing


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A hundred looks a second."""
    monkeypatch.setattr(watchdog, "LOOK_S", 0.01)
    monkeypatch.setattr(watchdog, "SILENT_S", 0.3)
    monkeypatch.setattr(watchdog, "MOST_S", 0.05)
    monkeypatch.setattr(watchdog, "GRACE_S", 0.05)


class Pair:
    """Two watchdogs on one folder, and what each of them decided."""

    def __init__(self, folder, hang_timeout_s=60.0, **options):
        self.found = {0: [], 1: []}
        self.dogs = [
            Watchdog(
                folder,
                process=i,
                processes=2,
                session="s",
                hang_timeout_s=hang_timeout_s,
                leave=self.found[i].append,
                **options,
            )
            for i in range(2)
        ]

    def __enter__(self):
        for dog in self.dogs:
            dog.__enter__()
        return self

    def __exit__(self, *_):
        for dog in self.dogs:
            if not dog._ended.is_set():
                dog.__exit__()

    def verdict(self, of, *, within_s=5.0):
        """What a watchdog decides, or None."""
        end_s = time.monotonic() + within_s
        while not self.found[of] and time.monotonic() < end_s:
            time.sleep(0.005)
        return self.found[of][0] if self.found[of] else None


def test_a_process_whose_lock_is_free_died(tmp_path):
    with Pair(tmp_path) as pair:
        pair.dogs[1].beat(Doing.UPDATING, 7)
        time.sleep(0.05)
        pair.dogs[1].__exit__()  # the system closes a dead one's files
        verdict = pair.verdict(0)
    assert verdict.code is ExitCode.HOST_LOST
    assert "process 1 (pid " in verdict.line and verdict.line.endswith("died at step 7 (updating)")


def test_a_process_that_holds_its_lock_and_says_nothing_is_stopped(tmp_path):
    with Pair(tmp_path) as pair:
        pair.dogs[1]._ended.set()
        pair.dogs[1]._thread.join()
        verdict = pair.verdict(0)
        pair.dogs[1].__exit__()
    assert verdict.code is ExitCode.HANG
    assert "process 1 (pid " in verdict.line and "it is stopped, or its machine" in verdict.line


@pytest.mark.parametrize(
    ("code", "expected"),
    [(0, None), (75, None), (3, None), (4, ExitCode.NOT_SAVED), (1, ExitCode.FAILURE)],
)
def test_others_follow_one_that_left_with_an_error_and_no_other(tmp_path, code, expected):
    with Pair(tmp_path) as pair:
        pair.dogs[1].left(code)
        pair.dogs[1].__exit__()
        verdict = pair.verdict(0, within_s=5.0 if expected else 0.3)
        assert pair.dogs[0].why(wait_s=0.01) == verdict
    assert (verdict.code if verdict else None) == expected
    assert verdict is None or f"left with exit code {code}" in verdict.line


def beats(dog, *doings):
    for doing in (Doing.RESTORING, *doings):
        dog.beat(doing, 5)


@pytest.mark.parametrize("of", [0, 1])
def test_the_one_that_did_least_holds_up_all(tmp_path, of):
    """Both watchdogs see it, that of the culprit too."""
    with Pair(tmp_path, hang_timeout_s=0.2) as pair:
        beats(pair.dogs[0], Doing.READING, Doing.UPDATING, Doing.READING, Doing.UPDATING)
        beats(pair.dogs[1], Doing.READING)
        verdict = pair.verdict(of)
    assert verdict.code is ExitCode.HANG
    assert "all wait for process 1 (pid " in verdict.line
    assert verdict.line.endswith("at step 5 (reading a batch)")


def test_one_that_was_set_back_first_is_not_behind(tmp_path):
    """It restores again and waits there for the other, which never came that far."""
    with Pair(tmp_path, hang_timeout_s=0.2) as pair:
        for dog in pair.dogs:
            beats(dog, Doing.READING, Doing.UPDATING, Doing.READING, Doing.UPDATING)
        pair.dogs[1].beat(Doing.READING, 6)
        for doing in (Doing.READING, Doing.UPDATING, Doing.RESTORING):
            pair.dogs[0].beat(doing, 6)
        verdict = pair.verdict(1)
    assert verdict.code is ExitCode.HANG
    assert "all wait for process 1 (pid " in verdict.line
    assert verdict.line.endswith("at step 6 (reading a batch)")


def test_where_none_is_behind_none_is_named(tmp_path):
    with Pair(tmp_path, hang_timeout_s=0.2) as pair:
        for dog in pair.dogs:
            beats(dog, Doing.READING, Doing.UPDATING)
        verdict = pair.verdict(0)
    assert verdict.code is ExitCode.HANG
    assert "all processes are at step 5 (updating), none is behind" in verdict.line


@pytest.mark.parametrize("doing", [Doing.COMPILING, Doing.RESTORING, Doing.SAVING])
def test_slow_things_have_ten_times_as_long(tmp_path, doing):
    with Pair(tmp_path, hang_timeout_s=0.04) as pair:
        for dog in pair.dogs:
            dog.beat(doing, 0)
        began_s = time.monotonic()
        assert pair.verdict(0).code is ExitCode.HANG
    assert time.monotonic() - began_s > 0.35


def test_preparing_data_may_take_any_time_and_progress_is_no_hang(tmp_path):
    with Pair(tmp_path, hang_timeout_s=0.1) as pair:
        assert pair.verdict(0, within_s=0.3) is None
        for step in range(10):
            for dog in pair.dogs:
                dog.beat(Doing.UPDATING, step)
            assert pair.verdict(0, within_s=0.03) is None


def test_a_process_that_stood_still_itself_blames_nobody(tmp_path):
    """A machine that was paused: its clock jumps, and the others' silence was its own."""
    jump = [0.0]
    with Pair(tmp_path, hang_timeout_s=5.0, clock=lambda: time.monotonic() + jump[0]) as pair:
        for dog in pair.dogs:
            dog.beat(Doing.UPDATING, 1)
        for _ in range(3):
            jump[0] += 1000.0
            assert pair.verdict(0, within_s=0.1) is None


def test_beats_of_another_time_are_of_nobody(tmp_path):
    old = {"session": "old", "process": 1, "host": "h", "pid": 1, "doing": "updating", "step": 9}
    (tmp_path / "1").write_text(json.dumps({**old, "count": 3}))
    found = []
    dog = Watchdog(
        tmp_path, process=0, processes=2, session="s", hang_timeout_s=9, leave=found.append
    )
    with dog:
        assert dog.why(wait_s=0.01) is None
        end_s = time.monotonic() + 5
        while not found and time.monotonic() < end_s:
            time.sleep(0.01)
    assert found[0].code is ExitCode.HOST_LOST and "never began" in found[0].line


def lone_dog(folder):
    return Watchdog(
        folder, process=0, processes=1, session="s", hang_timeout_s=9, leave=lambda verdict: None
    )


def holder_of(path):
    """A file whose lock is held, as by another job's process; its beat says so."""
    beat = {"session": "o", "process": 0, "host": "h", "pid": 77, "doing": "updating", "step": 9}
    path.write_text(json.dumps({**beat, "count": 3}))
    file = open(path, "rb")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def test_a_lock_that_another_holds_is_one_line_and_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "LOCK_S", 0.2)
    refusal = []

    def enter():
        with pytest.raises(LabError) as error, lone_dog(tmp_path):
            pass
        refusal.append(str(error.value))

    with holder_of(tmp_path / "0"):
        thread = threading.Thread(target=enter, daemon=True)
        thread.start()
        thread.join(5)
        assert refusal, "it waits without limit"
    (line,) = refusal
    assert line.startswith(f"{tmp_path / '0'}: process 0 (pid 77 on h) holds it")
    with lone_dog(tmp_path):
        pass


def test_a_lock_that_another_holds_for_a_moment_is_waited_for(tmp_path):
    held = holder_of(tmp_path / "0")
    threading.Timer(0.3, held.close).start()
    with lone_dog(tmp_path):
        assert read_beat(tmp_path / "0").session == "s"


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def no_locks(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(OSError, match="No locks available") as error, lone_dog(tmp_path):
        pass
    assert error.value.filename == str(tmp_path / "0")


def test_the_last_word_of_one_that_leaves_stands(tmp_path, monkeypatch):
    """The thread is about to write an older beat when the process says with what it leaves."""
    monkeypatch.setattr(watchdog, "LOOK_S", 60.0)
    real, late, go_on = os.pwrite, threading.Event(), threading.Event()

    def slow(*given):
        if threading.current_thread() is thread:
            late.set()
            go_on.wait(10)
        return real(*given)

    with lone_dog(tmp_path) as dog:
        monkeypatch.setattr(os, "pwrite", slow)
        thread = threading.Thread(target=dog._write)
        thread.start()
        assert late.wait(10)
        leaving = threading.Thread(target=dog.left, args=(4,))
        leaving.start()
        dog.beat(Doing.UPDATING, 3)  # who trains does not wait for the disk
        leaving.join(0.3)
        go_on.set()
        thread.join()
        leaving.join()
        assert read_beat(tmp_path / "0").left == 4


@pytest.mark.parametrize("content", [b"", b'{"session": "s"', b"[1]", b'{"other": 1}'])
def test_half_a_beat_is_none(tmp_path, content):
    (tmp_path / "1").write_bytes(content)
    assert read_beat(tmp_path / "1") is None
    assert read_beat(tmp_path / "2") is None
