"""What the fields of a classifier's config need of each other."""

from __future__ import annotations

import typing

from lab.core.errors import LabError

if typing.TYPE_CHECKING:
    from lab.core.config import ClassifierConfig, ClassifierRunConfig

# The fields of config.classifier that one kind needs; the others must be 0 or "".
_OF_KIND = {"conv": ("multipliers", "groups"), "patch": ("heads", "mlp_hidden")}


def check_classifier(run: ClassifierRunConfig) -> None:
    """Refuse fields of a classifier that do not fit each other or its images."""
    classifier = run.classifier
    for kind, names in _OF_KIND.items():
        for name in names:
            value, needed = getattr(classifier, name), kind == classifier.kind
            if needed != bool(value):
                want = "a value is needed" if needed else 'must be 0 or ""'
                raise LabError(
                    f'config.classifier.{name} = {value!r}: {want} where kind = "{classifier.kind}"'
                )
    if classifier.kind == "conv":
        _check_convolutions(run)
    else:
        _check_patches(run)
    for rule in ("width_rule", "depth_rule"):
        if (value := getattr(run.optimizer, rule)) != "none":
            raise LabError(
                f'config.optimizer.{rule} = "{value}": a classifier has no rule of that kind; '
                '"none" is expected'
            )
    if run.data.augmentation == "ten_crop":
        raise LabError('config.data.augmentation = "ten_crop": a classifier trains on none or flip')


def _check_convolutions(run: ClassifierRunConfig) -> None:
    classifier = run.classifier
    levels = levels_of(classifier)
    for channels in (classifier.width * level for level in levels):
        if channels % min(classifier.groups, channels):
            raise LabError(
                f"config.classifier.groups = {classifier.groups}: must divide the {channels} "
                "channels of every level"
            )
    downscale = classifier.patch * 2 ** (len(levels) - 1)
    if run.images.resolution % downscale:
        raise LabError(
            f"config.images.resolution = {run.images.resolution}: a multiple of {downscale} is "
            f"needed for config.classifier.patch = {classifier.patch} and {len(levels)} levels"
        )
    if run.execution.remat != "none":
        raise LabError(
            f'config.execution.remat = "{run.execution.remat}": a classifier of convolutions keeps '
            'all activations; "none" is expected'
        )


def _check_patches(run: ClassifierRunConfig) -> None:
    classifier = run.classifier
    if run.images.resolution % classifier.patch:
        raise LabError(
            f"config.images.resolution = {run.images.resolution}: a multiple of "
            f"config.classifier.patch = {classifier.patch} is needed"
        )
    if classifier.width % classifier.heads:
        raise LabError(
            f"config.classifier.heads = {classifier.heads}: must divide config.classifier.width = "
            f"{classifier.width}"
        )
    if classifier.width % 4:
        raise LabError(
            f"config.classifier.width = {classifier.width}: a multiple of 4 is needed for "
            "sinusoids in two dimensions"
        )


def levels_of(classifier: ClassifierConfig) -> tuple[int, ...]:
    """The multipliers of the width from the finest level to the coarsest: "1-2-4"."""
    parts = classifier.multipliers.split("-")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise LabError(
            f'config.classifier.multipliers = "{classifier.multipliers}": whole numbers from 1 '
            'with dashes between them are expected, like "1-2-4"'
        )
    return tuple(int(part) for part in parts)
