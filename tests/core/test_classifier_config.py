"""The door for a classifier's run: what does not fit together is refused by name."""

import pytest

from configs.classifiers import base, conv, patch
from lab.core.classifier_checks import levels_of
from lab.core.config import ClassifierRunConfig, admit, identity
from lab.core.errors import LabError
from lab.core.fields import overlay, plain


def made(module, **overrides):
    return admit(overlay(module.get_config("small"), overrides))


@pytest.mark.parametrize(
    ("module", "overrides", "words"),
    [
        (conv, {"classifier.heads": 4}, ["config.classifier.heads = 4", 'kind = "conv"']),
        (conv, {"classifier.groups": 0}, ["config.classifier.groups = 0", "needed"]),
        (conv, {"classifier.groups": 5}, ["config.classifier.groups = 5", "32 channels"]),
        (conv, {"classifier.multipliers": "1-x"}, ["config.classifier.multipliers", "1-2-4"]),
        (conv, {"images.resolution": 56}, ["config.images.resolution = 56", "multiple of 16"]),
        (conv, {"execution.remat": "full"}, ["config.execution.remat", '"none"']),
        (conv, {"execution.head_chunks": 2}, ["config.execution.head_chunks = 2", "0 here"]),
        (conv, {"optimizer.width_rule": "mup"}, ["config.optimizer.width_rule", '"none"']),
        (conv, {"data.augmentation": "ten_crop"}, ["config.data.augmentation", "none or flip"]),
        (conv, {"classifier.kind": "mlp"}, ["config.classifier.kind", "conv, patch"]),
        (conv, {"classifier.label_smoothing": 1.0}, ["config.classifier.label_smoothing", "< 1"]),
        (patch, {"classifier.multipliers": "1"}, ["config.classifier.multipliers = '1'"]),
        (patch, {"classifier.mlp_hidden": 0}, ["config.classifier.mlp_hidden = 0", "needed"]),
        (patch, {"classifier.heads": 5}, ["config.classifier.heads = 5", "width = 96"]),
        (patch, {"images.resolution": 60}, ["config.images.resolution = 60", "patch = 8"]),
        (
            patch,
            {"classifier.width": 90, "classifier.heads": 3},
            ["config.classifier.width = 90", "multiple of 4"],
        ),
    ],
)
def test_what_does_not_fit_is_named(module, overrides, words):
    with pytest.raises(LabError) as caught:
        made(module, **overrides)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("module", [conv, patch])
def test_a_classifier_config_is_admitted_again_with_the_same_identity(module):
    run = made(module)
    assert isinstance(run, ClassifierRunConfig)
    assert identity(admit(plain(run))) == identity(run)
    assert identity(made(module, **{"execution.layout": "fsdp", "name": "x"})) == identity(run)
    assert identity(made(module, **{"data.name": "cifar10"})) != identity(run)


def test_levels_of_convolutions():
    assert levels_of(made(conv).classifier) == (1, 2, 4)


def test_every_field_of_the_base_has_its_meaning_beside_it():
    with open(base.__file__, encoding="utf-8") as file:
        sections = file.read().split("def _images(")[1].split("def check_size(")[0]
    fields = [line for line in sections.splitlines() if line.startswith("    c.")]
    assert fields and [line for line in fields if "  # " not in line] == []
