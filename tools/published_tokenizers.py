"""Our autoencoders and LPIPS against the packages that published them, with the same weights.

    pip install --target FOLDER --no-deps lpips taming-transformers-rom1504 diffusers
    pip install --target FOLDER torch huggingface_hub
    PYTHONPATH=FOLDER python -m tools.published_tokenizers

No published weights come with those packages, except LPIPS's channel weights, so all others are
drawn. Theirs makes the network at its published size, its `state_dict` becomes a safetensors file,
and ours reads that by the name maps that `lab.launch.adopt` uses. What both make of the same images
is compared: codes, latents, reconstructions, distances and their gradient. A check passes where
the largest difference is under TOLERANCE of the largest value, and ids of codes are all the same.
"""

import argparse
import importlib
import importlib.util
import pathlib
import sys
import tempfile
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lab.core.errors import LabError

TOLERANCE = 1e-4
SIDE = 128  # of the images; the networks take any multiple of their downscale
DIFFUSERS_KL = "diffusers.models.autoencoders.autoencoder_kl"
PACKAGES = ("torch", "lpips", "taming", "diffusers")


class Check(NamedTuple):
    """One comparison: the largest difference, relative, or the share of ids that differ."""

    name: str
    difference: float
    allowed: float


def lpips_checks(folder: pathlib.Path, images: np.ndarray, others: np.ndarray) -> Iterator[Check]:
    """Distances and their gradient: the published channel weights over a drawn VGG16."""
    torch, lpips = importlib.import_module("torch"), importlib.import_module("lpips")
    import jax

    from lab.tokenizers.perceptual import load_perceptual

    theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    weights = {}
    for name, value in theirs.state_dict().items():
        part = name.split(".")
        if part[0] == "net":
            weights[f"vgg.features.{part[2]}.{part[3]}"] = value
        elif part[0] in ("lin0", "lin1", "lin2", "lin3", "lin4"):
            weights[f"{part[0]}.weight"] = value
    ours = load_perceptual(saved(weights, folder / "lpips.safetensors"))
    moved = channels_first(others).requires_grad_()
    distances = theirs(channels_first(images), moved).reshape(-1)
    (gradient,) = torch.autograd.grad(distances.sum(), moved)
    fixed = jax.numpy.asarray(images)
    of_ours = jax.jit(jax.vjp, static_argnums=0)
    found, pull = of_ours(lambda x: ours(fixed, x), jax.numpy.asarray(others))
    yield compared("lpips: distances", found, distances)
    yield compared("lpips: gradient", pull(jax.numpy.ones_like(found))[0], channels_last(gradient))


def vqgan_checks(folder: pathlib.Path, images: np.ndarray, _: np.ndarray) -> Iterator[Check]:
    """taming-transformers' f16 with 16,384 codes, which are drawn around what the encoder gives."""
    import jax

    torch = importlib.import_module("torch")
    shape = {
        "double_z": False,
        "z_channels": 256,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": [1, 1, 2, 2, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [16],
        "dropout": 0.0,
    }
    made = importlib.import_module("taming.models.vqgan").VQModel(shape, {}, 16384, 256)
    theirs = with_vectors(made)
    pixels = channels_first(images)
    with torch.no_grad():
        latents = theirs.quant_conv(theirs.encoder(pixels)).permute(0, 2, 3, 1).reshape(-1, 256)
        table = theirs.quantize.embedding.weight
        near = latents[torch.randint(len(latents), (len(table),))]
        table.copy_(near + torch.randn_like(near) * latents.std(0) / 2)
        quantised, _, (_, _, ids) = theirs.encode(pixels)
        reconstruction = theirs.decode(quantised)
    path = saved(theirs.state_dict(), folder / "vqgan.safetensors")
    ours = adopted("configs/tokenizers/vqgan.py:f16-16384", path, "taming_vq")
    codes = jax.jit(lambda made, x: made.encode(x))(ours, images)
    wrong = float(np.mean(np.asarray(codes).reshape(-1) != ids.numpy()))
    different = len(np.unique(ids.numpy()))
    yield Check(f"vqgan f16: {ids.numel()} ids, {different} different ones", wrong, 0.0)
    decoded = jax.jit(lambda made, x: made.decode(x))(ours, codes)
    yield compared("vqgan f16: reconstruction", decoded, channels_last(reconstruction))


def kl_checks(folder: pathlib.Path, images: np.ndarray, _: np.ndarray) -> Iterator[Check]:
    """diffusers' AutoencoderKL as Stable Diffusion's f8."""
    import jax

    torch = importlib.import_module("torch")
    made = importlib.import_module(DIFFUSERS_KL)
    theirs = with_vectors(
        made.AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
            latent_channels=4,
        )
    )
    with torch.no_grad():
        latent = theirs.encode(channels_first(images)).latent_dist
        reconstruction = theirs.decode(latent.mean).sample
    path = saved(theirs.state_dict(), folder / "kl.safetensors")
    ours = adopted("configs/tokenizers/kl.py:sd-f8", path, "diffusers_kl")
    codes = jax.jit(lambda made, x: made.encode(x))(ours, images)
    mean = channels_last(latent.mean)
    yield compared("kl f8: mean", codes[..., :4], mean)
    yield compared("kl f8: log variance", codes[..., 4:], channels_last(latent.logvar))
    decoded = jax.jit(lambda made, x: made.decode(x))(ours, mean)
    yield compared("kl f8: reconstruction", decoded, channels_last(reconstruction))


def adopted(config: str, path: pathlib.Path, family: str) -> Any:
    """Our autoencoder of a config with the weights of a file."""
    import jax

    from lab.core.config import TokenizerRunConfig
    from lab.core.weights import read_weights
    from lab.launch.adopt import names_of
    from lab.launch.adoption import fitted_leaves
    from lab.launch.door import load_config
    from lab.tokenizers.build import autoencoder_builder

    file = read_weights(path)
    plain = {"losses.perceptual": "0", "losses.adversarial": "0", "optimizer.ema_decay": "0"}
    run = load_config(config, {**plain, "weights": file.sha256})
    assert isinstance(run, TokenizerRunConfig)
    leaves = fitted_leaves(run, file, names_of(family))
    build = autoencoder_builder(run, compute_dtype="float32")
    abstract = jax.eval_shape(build, jax.random.key(0))
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def with_vectors(theirs: Any) -> Any:
    """The module with noise on biases and scales, which begin as zeros and ones."""
    torch = importlib.import_module("torch")
    with torch.no_grad():
        for value in theirs.parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.1)
    return theirs.eval()


def saved(weights: dict[str, Any], path: pathlib.Path) -> pathlib.Path:
    """The path, after the tensors were written there."""
    save = importlib.import_module("safetensors.torch").save_file
    save({name: value.contiguous() for name, value in weights.items()}, path)
    return path


def channels_first(images: np.ndarray) -> Any:
    """Torch's layout of images (B, H, W, C)."""
    return importlib.import_module("torch").from_numpy(images).permute(0, 3, 1, 2).contiguous()


def channels_last(tensor: Any) -> np.ndarray:
    """Images (B, H, W, C) of torch's layout."""
    return tensor.detach().permute(0, 2, 3, 1).numpy()


def compared(name: str, ours: Any, theirs: Any) -> Check:
    """How far ours is from theirs, as a share of their largest value."""
    found = np.asarray(ours, np.float64)
    expected = np.asarray(theirs.detach() if hasattr(theirs, "detach") else theirs, np.float64)
    if found.shape != expected.shape:
        raise LabError(f"{name}: {found.shape} here, {expected.shape} there")
    return Check(name, float(np.abs(found - expected).max() / np.abs(expected).max()), TOLERANCE)


def stand_in() -> None:
    """Modules that those packages import and that no number here depends on.

    torchvision gives LPIPS the list of VGG16's layers, pytorch_lightning VQGAN its base class.
    """
    nn = importlib.import_module("torch.nn")
    widths = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)

    def vgg16(**_: Any) -> types.SimpleNamespace:
        layers, inputs = [], 3
        for width in widths:
            if not width:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            convolution = nn.Conv2d(inputs, width, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.normal_(convolution.bias, std=0.1)
            layers += [convolution, nn.ReLU(inplace=True)]
            inputs = width
        return types.SimpleNamespace(features=nn.Sequential(*layers))

    def module(name: str, **contents: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__dict__.update(contents)
        sys.modules[name] = made
        return made

    module("torchvision", models=module("torchvision.models", vgg16=vgg16))
    module("pytorch_lightning", LightningModule=nn.Module)
    module("taming.main", instantiate_from_config=lambda config: nn.Identity())
    if importlib.util.find_spec("tqdm") is None:
        module("tqdm", tqdm=iter)


def main(argv: list[str]) -> int:
    """Print a line a check; 1 where one fails, 2 where a package is not there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and images (0)")
    flags = parser.parse_args(argv)
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        print(f"error: not installed: {', '.join(absent)}; --help says how", file=sys.stderr)
        return 2
    importlib.import_module(DIFFUSERS_KL)  # asks which packages are there: before the stand-ins
    stand_in()
    importlib.import_module("torch").manual_seed(flags.seed)
    draws = np.random.default_rng(flags.seed)
    images = draws.uniform(-1, 1, (2, SIDE // 8, SIDE // 8, 3)).repeat(8, 1).repeat(8, 2)
    images = images.astype(np.float32)
    others = np.clip(images + draws.normal(size=images.shape) / 5, -1, 1).astype(np.float32)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for checks in (lpips_checks, vqgan_checks, kl_checks):
            for check in checks(pathlib.Path(folder), images, others):
                passed = check.difference <= check.allowed
                failed += not passed
                word = "ok" if passed else "FAILED"
                print(f"{word:7}{check.name}: {check.difference:.1e} (at most {check.allowed:g})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
