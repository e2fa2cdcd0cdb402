"""How concentrated the weights of attention are: singular values of W_q W_k^T, head by head.

Where a few of them carry all of its energy, queries and keys differ along few directions: the
"spectral energy concentration" that Qi et al. (2025, arXiv 2505.19423) see before a transformer's
training fails; Zhai et al. (2023, arXiv 2303.06296) see its largest one grow as entropies collapse.
Of the weights alone: norms and rotary turns are not in it.

N layers, D width, H heads, K features of a head.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lab.models.generator import Generator


class Grams(NamedTuple):
    """W^T W of every head's queries and keys: (N, H, K, K), float32."""

    query_NHKK: jax.Array
    key_NHKK: jax.Array


def grams(model: Generator) -> Grams:
    """Of the Llama blocks of a model: all that the singular values depend on, and small."""
    attention = model.backbone.layers.attention

    def of(weight_NDD: jax.Array) -> jax.Array:
        layers, width, _ = weight_NDD.shape
        heads = weight_NDD.astype(jnp.float32).reshape(layers, width, attention.heads, -1)
        best = jax.lax.Precision.HIGHEST
        return jnp.einsum("ndhk,ndhj->nhkj", heads, heads, precision=best)

    return Grams(of(attention.query[...]), of(attention.key[...]))


def energies(found: Grams) -> np.ndarray:
    """Squared singular values of W_q W_k^T, the largest first: (N, H, K) float64.

    Those of R^T G_k R with G_q = R R^T.
    """
    query, key = (np.asarray(each, np.float64) for each in found)
    values, vectors = np.linalg.eigh(query)
    root = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    squares = np.linalg.eigvalsh(np.swapaxes(root, -1, -2) @ key @ root)
    return np.maximum(squares, 0)[..., ::-1]


def row(energy_NHK: np.ndarray) -> dict[str, float]:
    """For the record, numbers of every layer ("qk_top_share_0"), of the head furthest gone.

    qk_top_share: the share of the largest squared singular value (1: one direction is all).
    qk_effective_rank: exp of the entropy of those shares (Roy & Vetterli 2007), at most K.
    qk_spectral_norm: the largest singular value over sqrt(K), as logits have it.
    """
    total_NH = energy_NHK.sum(-1)
    share_NHK = energy_NHK / np.where(total_NH > 0, total_NH, 1.0)[..., None]
    logs = np.log(np.where(share_NHK > 0, share_NHK, 1.0))
    rank_NH = np.exp(-(share_NHK * logs).sum(-1))
    norm_NH = np.sqrt(energy_NHK[..., 0] / energy_NHK.shape[-1])
    of_layers = {
        "qk_top_share": share_NHK[..., 0].max(-1),
        "qk_effective_rank": rank_NH.min(-1),
        "qk_spectral_norm": norm_NH.max(-1),
    }
    return {
        f"{name}_{layer}": float(value)
        for name, values_N in of_layers.items()
        for layer, value in enumerate(values_N)
    }
