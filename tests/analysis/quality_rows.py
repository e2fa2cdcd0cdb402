"""Synthetic quality.jsonl files, as docs/run_directory.md states them."""

import hashlib
import json
from pathlib import Path

EXTRACTOR = {"name": "conv-s", "identity": "0123456789ab", "metric": "fd_eurosat"}
REFERENCE = {
    "data": "eurosat", "split": "train", "images": 4096, "identity": "ba9876543210",
    "resolution": 64,
}  # fmt: skip
SETTINGS = {"sampler": {"temperature": 1.0, "top_k": 0, "guidance": 1.0}, "seed": 0,
            "samples": 1024, "labels": "data"}  # fmt: skip
QUANTILE = 1.7291328115  # of Student's t with 19 degrees of freedom, 90 %


def value(metric, number, half, **changes):
    """A value with a symmetric interval."""
    return {
        "metric": metric, "value": number, "low": number - half, "high": number + half,
        "level": 0.9, "method": "bootstrap", "better": "lower", "unit": "squared features",
        "samples": 1024, "layer": None, "quantile": QUANTILE,
    } | changes  # fmt: skip


def row(values, *, what="fd", step=320, **changes):
    """A line of the schema; the key covers all but values and clock."""
    task = {
        "schema": "lab.quality/1", "what": what, "step": step, "weights": "raw",
        "settings": SETTINGS, "extractor": EXTRACTOR, "reference": REFERENCE,
    } | changes  # fmt: skip
    return keyed(task | {"values": values, "clock": {"elapsed_s": 1.0}})


def keyed(found):
    """The line with the key of its other fields."""
    task = {name: one for name, one in found.items() if name not in ("key", "values", "clock")}
    text = json.dumps(task, sort_keys=True, separators=(",", ":"))
    return found | {"key": hashlib.sha256(text.encode()).hexdigest()[:12]}


def append(run: Path, *rows):
    """Append lines to the quality.jsonl of a run."""
    with (run / "quality.jsonl").open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)


def truth(n):
    """The law of the synthetic Frechet distances."""
    return 4.0 + 900.0 * n**-0.5


def fd(n, *, scale=1.0, **changes):
    """Distances at four counts, the kernel distance, and the floor of real images."""
    final = scale * truth(n)
    values = [
        value("fd_eurosat", final + 900 / count, 0.05 * final, samples=count)
        for count in (128, 256, 512)
    ]
    values += [
        value("fd_eurosat", final, 0.02 * final),
        value("fd_infinity_eurosat", final - 1.0, 0.03 * final, method="line in 1/N"),
        value("kid_eurosat", final / 1000, 0.001, unit="MMD^2"),
        value("precision_eurosat", 0.6, 0.03, better="higher", unit="share"),
        value("fd_eurosat_real", 1.5, 0.1),
    ]
    return row(values, **changes)


def probe(n, layers=4, **changes):
    """Accuracy that rises to the layer before the last and grows with the size."""
    best = 1.0 - n**-0.1
    values = [
        value("probe_top1", best - 0.05 * abs(layers - 1 - layer), 0.01, better="higher",
              unit="share", layer=layer, method="wilson", samples=2048, penalty=1e-7,
              penalty_at_edge=layer == 1)
        for layer in range(layers + 1)
    ]  # fmt: skip
    return row(values, what="probe", extractor=None, reference=REFERENCE | {"split": "validation"},
               settings={"probe": "ridge", "seed": 0}, **changes)  # fmt: skip


def attention(n, layers=4, heads=4, **changes):
    """Three numbers a layer with a number a head."""
    values = []
    for layer in range(layers):
        for metric, unit, scale in (
            ("attention_distance_cells", "cells", 3.0),
            ("attention_entropy_nats", "nats", 4.0),
            ("attention_sink_mass", "share", 0.3),
        ):
            dots = [scale * (layer + 1) / layers * (0.7 + 0.2 * head) for head in range(heads)]
            values.append(
                value(metric, sum(dots) / heads, 0.02 * scale, unit=unit, better=None,
                      layer=layer, per_head=dots, samples=256)
            )  # fmt: skip
        values.append(value("attention_uniform_distance_cells", 3.5, 0.0, unit="cells",
                            better=None, layer=layer, samples=256, method="exact"))  # fmt: skip
    return row(values, what="attention", extractor=None, settings={"seed": 0, "images": 256},
               **changes)  # fmt: skip


def randomness(n, temperatures=(0.7, 0.85, 1.0, 1.15), guidances=(1.0, 2.0)):
    """A task a point: best at temperature 0.85, flat between 0.85 and 1."""
    rows = []
    for temperature in temperatures:
        for guidance in guidances:
            at = truth(n) * (1 + 8 * (temperature - 0.9) ** 2 + 0.5 * (guidance - 1.0) ** 2)
            sampler = {"temperature": temperature, "top_k": 0, "guidance": guidance}
            rows.append(
                row([value("fd_eurosat", at, 0.03 * truth(n), samples=512)], what="randomness",
                    settings=SETTINGS | {"sampler": sampler, "samples": 512})
            )  # fmt: skip
    return rows
