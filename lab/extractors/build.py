"""From a classifier's config to the classifier."""

from lab.core.classifier_checks import levels_of
from lab.core.config import ClassifierRunConfig
from lab.extractors.classifier import ClassifierSpec

CHANNELS = {"grey": 1, "rgb": 3}


def classifier_spec(run: ClassifierRunConfig, *, classes: int) -> ClassifierSpec:
    """The shape of a run's classifier; the classes are those of its data."""
    c = run.classifier
    return ClassifierSpec(
        kind=c.kind,
        width=c.width,
        depth=c.depth,
        patch=c.patch,
        multipliers=levels_of(c) if c.kind == "conv" else (),
        groups=c.groups,
        heads=c.heads,
        mlp_hidden=c.mlp_hidden,
        resolution=run.images.resolution,
        channels=CHANNELS[run.images.channels],
        classes=classes,
    )
