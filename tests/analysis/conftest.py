"""A writer of synthetic run directories, as docs/run_directory.md states them."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

IMAGES, TOKENS_PER_IMAGE = 64, 192


def law(n: float, d: float) -> float:
    """The truth of the synthetic ladders, nats per token."""
    return 1.8 + 4.0 * n**-0.3 + 60.0 * d**-0.35


def write_run(
    study: Path,
    *,
    n: int,
    tokens: int = 4_000_000,
    loss: float | None = None,
    name: str | None = None,
    seed: int = 0,
    changes: dict | None = None,
    end: dict | None = None,
    manifest: dict | None = None,
) -> Path:
    """Write one run; `changes` go into the header, `end` and `manifest` into theirs."""
    value = law(n, tokens) if loss is None else loss
    identity = f"{n:08x}{tokens:010x}{seed:02x}"
    path = study / identity
    (path / "checkpoints" / "320").mkdir(parents=True)
    rng = np.random.default_rng(7)  # the same images for every run
    images = rng.normal(0.0, 20.0, IMAGES)
    own = np.random.default_rng(n).normal(0.0, 0.02, IMAGES)
    per_image = value * TOKENS_PER_IMAGE + images - images.mean() + own - own.mean()
    header = {
        "kind": "header", "schema": "lab.record/1", "identity": identity, "study": study.name,
        "name": name or f"n{n}", "seed": seed, "family": "elm", "size": f"s{n}",
        "likelihood": "exact",
        "units": {"loss": "nats/token", "params": "count", "flops": "count", "tokens": "count"},
        "data": {"name": "dead_leaves/8", "digest": "d1"},
        "tokenizer": {"name": "pixels", "vocabulary": 32, "tokens_per_image": TOKENS_PER_IMAGE},
        "params": {"embedding": 500, "blocks": n, "head": 700},
        "tokens_per_step": tokens // 320, "steps": 320,
    } | (changes or {})  # fmt: skip
    rows: list[dict] = [header]
    for step in (0, 160, 320):
        seen = tokens * step // 320
        now = value + (1.2 if step == 0 else 0.3 if step == 160 else 0.0)
        rows.append(
            {
                "kind": "evaluation", "step": step, "tokens": seen, "flops": 6.5 * n * seen,
                "split": "validation", "weights": "raw", "examples": IMAGES,
                "loss_nats_per_token": now,
                "loss_se_nats_per_token": float(per_image.std(ddof=1) / 8 / TOKENS_PER_IMAGE),
                "loss_nats_per_image": now * TOKENS_PER_IMAGE,
                "bits_per_dim": now / np.log(2), "clock": {"elapsed_s": 1.0},
            }
        )  # fmt: skip
    metrics = {name: value for name, value in rows[-1].items() if name not in ("kind", "clock")}
    rows.append(end or {"kind": "end", "status": "finished", "step": 320, "clock": {}})
    (path / "record.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "config.json").write_text(json.dumps({"identity": identity}))
    np.savez(path / "validation.npz", nats_per_image=per_image.astype(np.float32), step=320)
    kept = {"schema": "lab.checkpoint/1", "step": 320, "metrics": metrics | (manifest or {})}
    (path / "checkpoints" / "320" / "manifest.json").write_text(json.dumps(kept))
    return path


@pytest.fixture
def run_writer() -> Callable[..., Path]:
    return write_run


@pytest.fixture
def truth() -> Callable[[float, float], float]:
    return law


@pytest.fixture
def ladder(tmp_path: Path) -> Path:
    """Seven sizes at one D with 0.05 % noise, the largest left for a forecast."""
    study = tmp_path / "first_ladder"
    rng = np.random.default_rng(3)
    for n in np.geomspace(3000, 120_000, 7).round().astype(int):
        write_run(study, n=int(n), loss=law(n, 4e6) * float(np.exp(rng.normal(0, 5e-4))))
    return study


@pytest.fixture
def rewrite() -> Callable[[Path, Callable[[list[dict]], list[dict]]], None]:
    """Edit the rows of a record in place."""

    def edit(run: Path, change: Callable[[list[dict]], list[dict]]) -> None:
        path = run / "record.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))

    return edit


@pytest.fixture
def public_tables() -> Path:
    """The folder of public scaling-law tables beside the checkout."""
    folders: Sequence[Path] = (
        *([Path(os.environ["TFDS_MANUAL_DIR"])] if "TFDS_MANUAL_DIR" in os.environ else []),
        Path(__file__).parents[3] / "shared" / "data",
    )
    for folder in folders:
        if (folder / "laws").is_dir():
            return folder / "laws"
    pytest.skip("no folder laws in TFDS_MANUAL_DIR or ../shared/data")
