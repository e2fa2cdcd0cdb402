"""Copy what a finding rests on out of a study's folder: records, configs, losses by image, quality.

    python tools/collect_records.py runs/STUDY experiments/01_first_ladder/results

Checkpoints stay where they are. The copy is a study that `python -m analysis` reads. Its configs
name no folder of the machine: `execution.workdir`, which is no part of what a run is, is "runs".
"""

import argparse
import json
import pathlib
import shutil

KEPT = (
    "*/record.jsonl",
    "*/config.json",
    "*/validation.npz",
    "*/quality.jsonl",
    "forecast*.json*",
)


WORKDIR = "runs"  # that of configs/base.py


def copy(path: pathlib.Path, place: pathlib.Path) -> None:
    """Copy a file; a config without the folder that its study lay in."""
    if path.name != "config.json":
        shutil.copyfile(path, place)
        return
    document = json.loads(path.read_text(encoding="utf-8"))
    document["config"]["execution"]["workdir"] = WORKDIR
    place.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Copy the files, over those of an earlier copy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=pathlib.Path, help="a study's folder of runs")
    parser.add_argument("results", type=pathlib.Path, help="the folder that takes <study>/")
    flags = parser.parse_args()
    if not flags.study.is_dir():
        parser.error(f"{flags.study}: no such folder")
    target = flags.results / flags.study.name
    shutil.rmtree(target, ignore_errors=True)
    for pattern in KEPT:
        for path in sorted(flags.study.glob(pattern)):
            place = target / path.relative_to(flags.study)
            place.parent.mkdir(parents=True, exist_ok=True)
            copy(path, place)
    print(f"copied to {target}")


if __name__ == "__main__":
    main()
