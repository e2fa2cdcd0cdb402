"""Learning rate x width, under the width rule "mup" and under none.

python -m lab.launch.sweep experiments/00_learning_rate/sweep.py --workers 2
"""

from lab.core.sweep import Override, axis, chain, product

STUDY = "learning_rate"
WIDTHS = {32: 88, 64: 176, 128: 344}  # width to the features inside SwiGLU
RATES = [0.00075, 0.0015, 0.003, 0.006, 0.012, 0.024, 0.048]
TOKENS = 1_000_000


def sweep() -> list[Override]:
    """Both rules over the same grid; "none" also starts every matrix at one spread."""
    common: Override = {
        "config": "configs/elm.py:s6",
        "study": STUDY,
        "model.depth": 2,
        "data.train_examples": 20_833,
        "train.batch_size": 8,
        "train.evaluation_batch_size": 32,
        "train.log_every_steps": 50,
        "train.duration": f"{TOKENS} tokens",
        "execution.unroll_layers": True,
        "execution.checkpoint_every_steps": 1000,
    }
    widths = [
        {"model.width": width, "model.heads": width // 16, "model.mlp_hidden": hidden}
        for width, hidden in WIDTHS.items()
    ]
    rules: list[Override] = [
        {"optimizer.width_rule": "mup", "model.init": "mup", "model.init_std": 0.3},
        {"optimizer.width_rule": "none", "model.init": "normal", "model.init_std": 0.02},
    ]
    grid = product(rules, widths, axis("optimizer.learning_rate", RATES), [common])
    return chain([{**run, "name": label(run)} for run in grid])


def label(run: Override) -> str:
    """mup-w64-0.006."""
    rate = run["optimizer.learning_rate"]
    return f"{run['optimizer.width_rule']}-w{run['model.width']}-{rate:g}"
