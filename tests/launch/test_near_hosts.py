"""Several processes that save on disks of their own, killed and gone on from there."""

import shutil

import pytest

from tests.launch.several import (
    ended,
    rows,
    run_folder,
    start_together,
    train_together,
)
from tests.launch.test_hosts import FSDP, wait_for_rows


def flags(folder):
    return (
        FSDP,
        "--config.execution.checkpoint_every_steps=100",  # none is shared before the end
        f"--config.execution.local_checkpoints={folder / 'disk'}",
        "--config.execution.local_checkpoint_every_steps=2",
        "--config.train.log_every_steps=1",
    )


def trained(folder):
    """Lines of the record of updates, with their clock."""
    lines = (run_folder(folder) / "record.jsonl").read_text().splitlines()
    return [line for line in lines if '"kind": "train"' in line]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    train_together(2, folder, *flags(folder))
    assert not list((folder / "disk").rglob("manifest.json")), "nothing is left of a finished run"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("one_is_new", [False, True])
def test_two_killed_processes_go_on_from_their_own_disks(tmp_path, straight, one_is_new):
    """Where one of the two comes with an empty disk, from what is shared: here from the start."""
    started = start_together(2, tmp_path, *flags(tmp_path))
    wait_for_rows(tmp_path, 9, seconds=200)
    for process in started:
        process.kill()
    ended(started)
    (disk,) = (tmp_path / "disk").glob("*/*")
    kept = [
        {int(path.parent.name) for path in (disk / f"{index}-of-2").glob("*/manifest.json")}
        for index in range(2)
    ]
    if one_is_new:
        shutil.rmtree(disk / "1-of-2")
    before = trained(tmp_path)
    train_together(2, tmp_path, *flags(tmp_path))
    assert rows(tmp_path) == rows(straight), "bit for bit"
    step = max(kept[0] & kept[1])
    stands = trained(tmp_path)[:step] == before[:step]
    assert step >= 2 and stands is not one_is_new
