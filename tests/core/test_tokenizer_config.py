"""The door for a tokenizer's run: what does not fit together is refused by name."""

import pytest

from configs import elm
from configs.tokenizers import base, binary, kl, vqgan
from lab.core.config import TokenizerRunConfig, admit, identity
from lab.core.errors import LabError
from lab.core.fields import overlay, plain
from lab.core.tokenizer_checks import levels_of
from lab.models import families


def made(module, size, **overrides):
    return admit(overlay(module.get_config(size), overrides))


@pytest.mark.parametrize(
    ("module", "size", "overrides", "words"),
    [
        (vqgan, "small", {"code.bits": 4}, ["config.code.bits = 4", 'kind = "vq"']),
        (vqgan, "small", {"code.vocabulary": 0}, ["config.code.vocabulary = 0", "at least 1"]),
        (binary, "small-16", {"code.normalised": True}, ["config.code.normalised = True"]),
        (binary, "small-16", {"losses.commitment": 0.25}, ["config.losses.commitment = 0.25"]),
        (kl, "small", {"code.sampled": True}, ["config.code.sampled = True"]),
        (kl, "small", {"losses.restart_below": 0.1}, ["config.losses.restart_below = 0.1"]),
        (vqgan, "f16-1024", {}, ["config.losses.perceptual_file", "safetensors"]),
        (vqgan, "small", {"images.resolution": 60}, ["config.images.resolution = 60", "of 8"]),
        (vqgan, "small", {"autoencoder.multipliers": "1-x"}, ["multipliers", "1-1-2-2-4"]),
        (vqgan, "small", {"autoencoder.groups": 6}, ["config.autoencoder.groups = 6"]),
        (vqgan, "small", {"optimizer.width_rule": "mup"}, ["config.optimizer.width_rule"]),
        (vqgan, "small", {"data.augmentation": "ten_crop"}, ["config.data.augmentation"]),
        (binary, "small-16", {"code.bits": 64}, ["config.code.bits = 64", "< 64"]),
        (
            vqgan,
            "small",
            {"losses.adversarial": 0.5, "images.resolution": 8, "losses.discriminator_layers": 2},
            ["config.losses.discriminator_layers = 2", "12 pixels", "not 8"],
        ),
        (
            vqgan,
            "f16-1024",
            {"losses.perceptual_file": "x", "images.channels": "grey"},
            ["config.losses.perceptual = 1", "rgb", "not grey"],
        ),
        (kl, "small", {"execution.remat": "full"}, ["config.execution.remat", '"none"']),
        (
            kl,
            "small",
            {"execution.accumulation": 2},
            ["config.execution.accumulation = 2", "1 here"],
        ),
        (vqgan, "small", {"code.kind": "fsq"}, ["config.code.kind", "vq, binary, kl"]),
    ],
)
def test_what_does_not_fit_is_named(module, size, overrides, words):
    with pytest.raises(LabError) as caught:
        made(module, size, **overrides)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_tokenizer_config_is_admitted_again_with_the_same_identity():
    run = made(binary, "small-16")
    assert isinstance(run, TokenizerRunConfig)
    assert identity(admit(plain(run))) == identity(run)
    assert levels_of(run.autoencoder) == (1, 2, 4, 4)


def test_the_weights_file_and_the_folders_are_no_part_of_the_identity():
    one = made(vqgan, "f16-1024", **{"losses.perceptual_file": "a.safetensors"})
    other = made(vqgan, "f16-1024", **{"losses.perceptual_file": "b.safetensors"})
    assert identity(one) == identity(other)
    assert identity(made(vqgan, "small")) != identity(made(vqgan, "small", seed=1))


def generator(**overrides):
    c = overlay(elm.get_config("s1"), overrides)
    families.fill_sizes(c.model)
    return admit(c)


def test_fields_that_came_later_leave_old_identities_alone():
    """The identities of the first ladder's committed records were made before these fields."""
    assert identity(generator()) == identity(generator(**{"data.augmentation": "none"}))
    assert "augmentation" not in str(identity_text(generator()))
    changed = generator(**{"data.augmentation": "flip"})
    assert identity(changed) != identity(generator())


def identity_text(run):
    from lab.core.fields import defining

    return defining(run)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"tokenizer.name": "trained"}, ["config.tokenizer.run", "needed"]),
        ({"tokenizer.trained": "0123456789ab"}, ["config.tokenizer.run", "of no use"]),
        ({"tokenizer.codes": "codes"}, ["config.tokenizer.codes", '"trained"']),
        ({"tokenizer.sampled": True}, ["config.tokenizer.sampled", "on the fly"]),
        ({"data.augmentation": "ten_crop"}, ["ten_crop", "config.tokenizer.codes"]),
        ({"tokenizer.name": "vqgan"}, ["config.tokenizer.name", "pixels, pixel_bits, trained"]),
    ],
)
def test_a_generator_and_its_tokens_must_fit(overrides, words):
    with pytest.raises(LabError) as caught:
        generator(**overrides)
    for word in words:
        assert word in str(caught.value)


def test_every_field_of_the_base_has_its_meaning_beside_it():
    source = base.__file__
    with open(source, encoding="utf-8") as file:
        head = file.read().split("def eight_by_twelve(")[0]
    fields = [line for line in head.splitlines() if line.startswith("    c.") and "()" not in line]
    bare = [line.strip() for line in fields if "  # " not in line]
    assert bare == ['c.optimizer.width_rule = "none"']
