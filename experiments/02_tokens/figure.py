"""The figure of the token table: images beside text.

python experiments/02_tokens/figure.py reports/tokens/tokens.json --out tokens.svg
"""

import argparse
import json
import pathlib
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
SCHEMA = "lab.tokens/1"
HEADLINE = "chao_wang_jost"
LEAST_NATS = 1e-4  # of mutual information on the logarithmic axis


def is_text(source: dict[str, Any]) -> bool:
    """Whether a source is a text: a grid of one row."""
    return source["grid"][0] == 1


def bars(axis, report: dict[str, Any]) -> None:
    """KL of single tokens from uniform, of what was measured and of what was published."""
    from matplotlib.patches import Patch

    sources = report["sources"]
    published = report["published_unigram_kl_nats"]
    names = [s["name"] for s in sources] + [f"{name}, published" for name in published]
    for place, source in enumerate(sources):
        found = source["unigram"]["kl_from_uniform"]
        low, high = found["low_nats"], found["high_nats"]
        color = "C1" if is_text(source) else "C0"
        if found["converged"]:
            axis.barh(place, found["nats"], color=color)
            axis.plot([low, high], [place, place], color="black", linewidth=1)
        else:
            axis.barh(place, high - low, left=low, color="none", edgecolor=color, hatch="///")
    for place, nats in enumerate(published.values(), start=len(sources)):
        axis.barh(place, nats, color="0.7")
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.invert_yaxis()
    axis.set(xlabel="KL from uniform, nats", title="single tokens")
    marks = [Patch(color="C0", label="images"), Patch(color="C1", label="text")]
    hollow = Patch(facecolor="none", edgecolor="0.3", hatch="///", label="bounds")
    axis.legend(handles=[*marks, Patch(color="0.7", label="ELM, table 1"), hollow], fontsize=7)


def curves(axis, sources: list[dict[str, Any]], colors: list[Any]) -> None:
    """KL of single tokens and of pairs against how many were drawn."""
    for source, color in zip(sources, colors, strict=True):
        for part, style in ((source["unigram"], "-"), (source["bigram"]["horizontal"], "--")):
            if part is None:
                continue
            draws = [point["draws"] for point in part["curve"]]
            kl = [
                part["ln_alphabet_nats"] - point["entropy_nats"][HEADLINE]
                for point in part["curve"]
            ]
            axis.plot(draws, kl, style, color=color, linewidth=1)
            filled = color if part["converged"] else "white"
            axis.plot(draws[-1:], kl[-1:], "o", color=color, markerfacecolor=filled, markersize=4)
    axis.plot([], [], "-", color="0.3", label="single tokens")
    axis.plot([], [], "--", color="0.3", label="horizontal pairs")
    axis.plot([], [], "o", color="0.3", markerfacecolor="white", label="not converged")
    axis.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncol=3)
    axis.set(
        xscale="log",
        xlabel="tokens or pairs drawn",
        ylabel="KL from uniform, nats",
        title="sub-sampling",
    )


def distances(axis, sources: list[dict[str, Any]], colors: list[Any]) -> None:
    """What coarse groups of tokens share against their distance, along rows and down columns."""
    for source, color in zip(sources, colors, strict=True):
        for along, across, style in (("columns", "rows", "o-"), ("rows", "columns", "s:")):
            found = [o for o in source["information_against_distance"] if o[across] == 0]
            if not found:
                continue
            x = [o[along] for o in found]
            y = [max(o["coarse_nats"], LEAST_NATS) for o in found]
            label = source["name"] if along == "columns" else None
            axis.plot(x, y, style, color=color, linewidth=1, markersize=3, label=label)
    axis.plot([], [], "s:", color="0.3", markersize=3, label="down columns")
    axis.set(xscale="log", yscale="log", xlabel="distance, tokens", title="mutual information")
    axis.set_ylabel(f"nats, of {sources[0]['coarse_groups']} groups (a lower bound)")
    axis.set_xscale("log", base=2)
    axis.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def draw(report: dict[str, Any], path: pathlib.Path) -> None:
    """Write the three panels as SVG (or by the suffix of the path)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sources = report["sources"]
    palette = pyplot.get_cmap("tab10" if len(sources) <= 10 else "tab20")
    colors = [palette(i % palette.N) for i in range(len(sources))]
    height = max(3.4, 0.2 * (len(sources) + 3) + 1)
    figure, axes = pyplot.subplots(1, 3, figsize=(13, height), layout="constrained")
    bars(axes[0], report)
    curves(axes[1], sources, colors)
    distances(axes[2], sources, colors)
    figure.savefig(path)
    pyplot.close(figure)


def main(argv: list[str]) -> int:
    """Read tokens.json, draw, say where."""
    flags = argparse.ArgumentParser(description="Draw the token table.")
    flags.add_argument("report", metavar="TOKENS_JSON", help="written by lab.launch.tokens --out")
    flags.add_argument("--out", default=str(HERE / "results" / "tokens.svg"), metavar="FILE")
    flags.add_argument("--only", nargs="+", metavar="WORD", help="sources whose name has a WORD")
    chosen = flags.parse_args(argv)
    report = json.loads(pathlib.Path(chosen.report).read_text(encoding="utf-8"))
    if report.get("schema") != SCHEMA:
        raise SystemExit(f"{chosen.report}: schema {report.get('schema')!r}; allowed: {SCHEMA}")
    if chosen.only:
        kept = [s for s in report["sources"] if any(word in s["name"] for word in chosen.only)]
        report["sources"] = kept
    if not report["sources"]:
        raise SystemExit(f"{chosen.report}: no such sources")
    out = pathlib.Path(chosen.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(report, out)
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
