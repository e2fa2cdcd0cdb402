"""Compile every family at its largest size for slices of 256 chips; go on where it was stopped.

make libtpu
python experiments/05_pods/pods.py --jobs 2   # two hours on two cores; a line a program
python experiments/05_pods/pods.py --table    # the tables of the README from the lines
"""

import argparse
import concurrent.futures
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

HERE = pathlib.Path(__file__).resolve().parent
LINES = HERE / "results" / "pods.jsonl"
TOPOLOGIES = ("v5e:16x16", "v6e:16x16", "v5p:4x8x8")
SEVEN = "configs/llamagen.py:7B"
# The largest of each family that has published sizes, AR on latents as MAR's ablation sizes it; the
# layout, since DiT's 1,152 features divide over 128 chips and not over 256; and flags.
LARGEST = (
    (SEVEN, "fsdp", ()),
    ("configs/elm.py:XXXL", "fsdp", ()),
    ("configs/mlm.py:XXL", "fsdp", ()),
    ("configs/bigr.py:XXL", "fsdp", ()),
    ("configs/mar.py:H", "fsdp", ()),
    (
        "configs/ar_diffusion.py:L",
        "fsdp",
        ("--grid", "16x16", "--channels", "16", "--classes", "1000", "--examples", "1281167"),
    ),
    ("configs/dit.py:XL", "hsdp", ()),
)
PUBLISHED_BATCH, LARGE_BATCH = 256, 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One call of lab.launch.compile."""

    config: str
    topology: str
    batch: int
    steps: str = "train"
    layout: str = "fsdp"
    remat: str = "full"
    slices: int = 1
    more: tuple[str, ...] = ()

    @property
    def flags(self) -> list[str]:
        """Of the command."""
        return [
            *("--config", self.config, "--topology", self.topology, "--slices", str(self.slices)),
            *("--layout", self.layout, "--steps", self.steps),
            f"--config.train.batch_size={self.batch}",
            f"--config.train.evaluation_batch_size={self.batch}",
            f"--config.execution.remat={self.remat}",
            *self.more,
        ]


def cases() -> Iterator[Case]:
    """The largest model first on every slice; then all families; then other ways to run it."""
    published = {"batch": PUBLISHED_BATCH}
    for topology in TOPOLOGIES:
        for config, layout, more in LARGEST:
            yield Case(config=config, topology=topology, layout=layout, more=more, **published)
    for topology in TOPOLOGIES:
        yield Case(config=SEVEN, topology=topology, batch=LARGE_BATCH)
    yield Case(config=SEVEN, topology="v5e:16x16", batch=LARGE_BATCH, layout="fsdp_tp")
    yield Case(config=SEVEN, topology="v5e:16x16", batch=LARGE_BATCH, layout="hsdp", slices=2)
    yield Case(config=SEVEN, topology="v5e:16x16", steps="evaluate,sample", **published)
    sixteen = {"layout": "hsdp", "more": ("--config.execution.replicas=16",)}
    for config in (SEVEN, "configs/elm.py:XXXL", "configs/mlm.py:XXL"):
        yield Case(config=config, topology="v5e:16x16", **sixteen, **published)


def main(argv: Sequence[str]) -> int:
    """Compile what has no line yet, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the tables and leave")
    parser.add_argument("--jobs", type=int, default=1, help="programs compiled at a time (1)")
    flags = parser.parse_args(argv)
    if flags.table:
        show()
        return 0
    done = {line["command"] for line in lines()}
    left = [case for case in cases() if " ".join(case.flags) not in done]
    with concurrent.futures.ThreadPoolExecutor(max(1, flags.jobs)) as pool:
        for finished in [pool.submit(compile_case, case) for case in left]:
            finished.result()
    show()
    return 0


def lines() -> list[dict]:
    """What has been compiled."""
    if not LINES.exists():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def compile_case(case: Case) -> None:
    """Run the command, a process of its own so that its memory is its own; append its line."""
    print(f"compiling {case.config} on {case.slices} x {case.topology}, {case.steps}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "plan.json"
        command = [sys.executable, "-m", "lab.launch.compile", *case.flags, "--out", str(out)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if not out.exists():
            raise SystemExit(f"{' '.join(command)}: {found.stderr.strip()[-400:]}")
        document = json.loads(out.read_text(encoding="utf-8"))
    LINES.parent.mkdir(exist_ok=True)
    with LINES.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"command": " ".join(case.flags), **document}) + "\n")


def show() -> None:
    """The tables, in Markdown."""
    print("| model | N, 1e9 | slice | layout | batch | HBM GiB of | model FLOPs | program FLOPs "
          "| sent GB | time, ms | MFU, % | days, whole run | compiled, s |")  # fmt: skip
    print("|" + "---|" * 13)
    for line in lines():
        for step in line["steps"]:
            print("| " + " | ".join(cells(line, step)) + " |")


def cells(line: dict, step: dict) -> list[str]:
    """A row of the table."""
    memory, seconds = step["memory"], step["seconds"]
    gib = f"{memory['needed'] / 2**30:.2f} of {memory['capacity'] / 2**30:.2f}"
    name = line["config"].removeprefix("configs/").replace(".py", "")
    named = [name if step["step"] == "train" else f"{name}, {step['step']}"]
    named += [f"{line['params']['total'] / 1e9:.2f}", line["topology"], line["layout"]]
    named += [f"{step['images']:,}", gib if memory["fits"] else f"**{gib}**"]
    model = "" if step["model_flops"] is None else f"{step['model_flops']:.2e}"
    if seconds is None:
        return [*named, model, "", "", "does not fit", "", "", f"{step['compile_s']:.0f}"]
    sent = sum(each["wire_bytes"] for each in step["collectives"]) / 1e9
    mfu = "" if not step["mfu"] else spread(100 * value for value in step["mfu"])
    whole = line["whole"]
    return [
        *named,
        model,
        f"{step['program_flops']:.2e}",
        f"{sent:.1f}",
        spread(1e3 * seconds[end] for end in ("low", "high")),
        mfu,
        spread(whole["days"]) if whole and step["step"] == "train" else "",
        f"{step['compile_s']:.0f}",
    ]


def spread(ends) -> str:
    """Two numbers, low and high."""
    return " .. ".join(f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in ends)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
