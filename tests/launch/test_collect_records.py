"""What a finding rests on, copied out of a study's folder."""

import json
import subprocess
import sys

from configs.base import get_config
from lab.launch.door import ROOT


def test_a_copy_names_no_folder_of_the_machine(tmp_path):
    run = tmp_path / "away" / "study" / "0123456789ab"
    (run / "checkpoints").mkdir(parents=True)
    config = {"seed": 3, "execution": {"workdir": str(tmp_path / "away"), "devices": 1}}
    (run / "config.json").write_text(json.dumps({"identity": "0123456789ab", "config": config}))
    (run / "record.jsonl").write_text("{}\n")
    command = ["tools/collect_records.py", str(run.parent), str(tmp_path / "results")]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    copy = tmp_path / "results" / "study" / run.name
    assert sorted(path.name for path in copy.iterdir()) == ["config.json", "record.jsonl"]
    found = json.loads((copy / "config.json").read_text())
    assert found["config"]["execution"] == {
        "workdir": get_config().execution.workdir,
        "devices": 1,
    }
    assert found["identity"] == "0123456789ab" and found["config"]["seed"] == 3
    assert (copy / "record.jsonl").read_text() == "{}\n"
