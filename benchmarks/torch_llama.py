"""The Llama-type pixel model written for PyTorch, with the weights of ours: a step and a draw.

What a user of PyTorch writes for speed on a CPU: one product for query, key and value,
`scaled_dot_product_attention`, `rms_norm`, fused AdamW, autocast for bfloat16.

B batch, T positions, D width, H heads, K features of a head, V codes, N layers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

torch: Any = importlib.import_module("torch")  # no requirement of ours: nothing of it is checked
nn, F = torch.nn, torch.nn.functional

# Of our parameters, by the names that `arrays_of` gives them: stacked ones have a layer axis.
STACKED = ("attention_norm", "query", "key", "value", "out", "mlp_norm", "gate", "up", "down")
HIDDEN = (*STACKED[1:5], *STACKED[6:], "head")  # the width rule scales the rate of these


def arrays_of(model: Any) -> dict[str, Any]:
    """The leaves of our generator, or of its gradients, by name."""
    layers, embedding = model.backbone.layers, model.embedding
    found = {
        "classes": model.classes.table,
        "tokens": embedding.tables,
        "slots": embedding.slot_table,
        "attention_norm": layers.attention_norm.scale,
        "mlp_norm": layers.mlp_norm.scale,
        "head_norm": model.head.norm.scale,
        "head": model.head.out,
    }
    found |= {name: getattr(layers.attention, name) for name in ("query", "key", "value", "out")}
    found |= {name: getattr(layers.mlp, name) for name in ("gate", "up", "down")}
    return {name: param[...] for name, param in found.items()}


class Block(nn.Module):
    """Pre-norm attention with rotary positions, then SwiGLU."""

    def __init__(self, width: int, heads: int, hidden: int, epsilon: float):
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=epsilon)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.RMSNorm(width, eps=epsilon)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.heads = heads

    def forward(self, x_BTD, cos_TK, sin_TK):
        """The block's output (B, T, D)."""
        batch, positions, width = x_BTD.shape
        three = self.qkv(self.attention_norm(x_BTD)).view(batch, positions, 3, self.heads, -1)
        q_BHTK, k_BHTK, v_BHTK = three.permute(2, 0, 3, 1, 4)
        q_BHTK, k_BHTK = (_turned(y, cos_TK, sin_TK) for y in (q_BHTK, k_BHTK))
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        x_BTD = x_BTD + self.out(y_BHTK.transpose(1, 2).reshape(batch, positions, width))
        gate, up = self.gate_up(self.mlp_norm(x_BTD)).chunk(2, dim=-1)
        return x_BTD + self.down(F.silu(gate) * up)


def _turned(x_BHTK, cos_TK, sin_TK):
    a, b = x_BHTK.chunk(2, dim=-1)
    cos_TK, sin_TK = cos_TK.to(x_BHTK.dtype), sin_TK.to(x_BHTK.dtype)
    return torch.cat([a * cos_TK - b * sin_TK, a * sin_TK + b * cos_TK], dim=-1)


class Llama(nn.Module):
    """The class and the tokens before a position give the logits of its token."""

    def __init__(self, ours: Any, angles_TK: np.ndarray):
        super().__init__()
        arrays, spec = arrays_of(ours), ours.backbone.spec
        width, epsilon = spec.width, spec.norm_epsilon
        self.classes = nn.Embedding(*arrays["classes"].shape)
        self.tokens = nn.Embedding(*arrays["tokens"].shape)
        self.slots = nn.Embedding(*arrays["slots"].shape)
        self.blocks = nn.ModuleList(
            Block(width, spec.heads, spec.mlp_hidden, epsilon) for _ in range(spec.depth)
        )
        self.head_norm = nn.RMSNorm(width, eps=epsilon)
        self.head = nn.Linear(width, arrays["head"].shape[1], bias=False)
        for name, function in (("cos_TK", np.cos), ("sin_TK", np.sin)):
            self.register_buffer(name, torch.tensor(function(angles_TK), dtype=torch.float32))
        slot_T = torch.arange(len(angles_TK)) % len(arrays["slots"])
        self.register_buffer("slot_T", slot_T)
        self._load({name: np.array(value) for name, value in arrays.items()})

    def forward(self, tokens_BT, label_B):
        """Logits (B, t + 1, V) in float32 after the class and after each of t tokens."""
        x_BTD = self.tokens(tokens_BT) + self.slots(self.slot_T[: tokens_BT.shape[1]])
        x_BTD = torch.cat([self.classes(label_B)[:, None], x_BTD], dim=1)
        positions = x_BTD.shape[1]
        cos_TK, sin_TK = self.cos_TK[:positions], self.sin_TK[:positions]
        for block in self.blocks:
            x_BTD = block(x_BTD, cos_TK, sin_TK)
        return self.head(self.head_norm(x_BTD)).float()

    def loss(self, tokens_BT, label_B):
        """The mean over images and positions, in nats."""
        logits_BTV = self.forward(tokens_BT[:, :-1], label_B)
        return F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT.flatten())

    def gradients(self) -> dict[str, np.ndarray]:
        """Of every parameter, by the names and in the layouts of ours."""
        found: dict[str, Any] = {name: [] for name in STACKED}
        for block in self.blocks:
            query, key, value = block.qkv.weight.grad.chunk(3)
            gate, up = block.gate_up.weight.grad.chunk(2)
            matrices = {"query": query, "key": key, "value": value, "gate": gate, "up": up}
            matrices |= {"out": block.out.weight.grad, "down": block.down.weight.grad}
            for name, gradient in matrices.items():
                found[name].append(gradient.T.numpy())
            for name in ("attention_norm", "mlp_norm"):
                found[name].append(getattr(block, name).weight.grad.numpy())
        found = {name: np.stack(parts) for name, parts in found.items()}
        for name in ("classes", "tokens", "slots", "head_norm"):
            found[name] = getattr(self, name).weight.grad.numpy()
        return found | {"head": self.head.weight.grad.T.numpy()}

    def groups(self, rate: float, multiplier: float) -> list[dict[str, Any]]:
        """Parameters with their rates: the width rule scales that of matrices behind the input."""
        matrices = [p for b in self.blocks for p in b.parameters() if p.ndim == 2]
        matrices.append(self.head.weight)
        known = {id(p) for p in matrices}
        others = [p for p in self.parameters() if id(p) not in known]
        return [{"params": matrices, "lr": rate * multiplier}, {"params": others, "lr": rate}]

    def _load(self, arrays: dict[str, np.ndarray]) -> None:
        def put(parameter, *values: np.ndarray) -> None:
            rows = np.concatenate([v.T if v.ndim == 2 else v for v in values])
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(rows)))

        for name in ("classes", "tokens", "slots"):
            put(getattr(self, name).weight, arrays[name].T)
        put(self.head_norm.weight, arrays["head_norm"])
        put(self.head.weight, arrays["head"])
        for number, block in enumerate(self.blocks):
            at = {name: arrays[name][number] for name in STACKED}
            put(block.attention_norm.weight, at["attention_norm"])
            put(block.mlp_norm.weight, at["mlp_norm"])
            put(block.qkv.weight, at["query"], at["key"], at["value"])
            put(block.gate_up.weight, at["gate"], at["up"])
            put(block.out.weight, at["out"])
            put(block.down.weight, at["down"])


def as_tensors(batch: dict[str, Any]) -> tuple[Any, Any]:
    """Tokens (B, T) and labels (B,) for PyTorch."""
    tokens_BT = np.asarray(batch["codes"])[..., 0].astype(np.int64)
    return torch.from_numpy(tokens_BT), torch.from_numpy(np.array(batch["label"], np.int64))


def losses(model: Any, *, dtype: str, compiled: bool) -> Callable[[Any, Any], Any]:
    """The model's loss under autocast where the dtype is bfloat16, compiled or not."""
    loss = torch.compile(model.loss, dynamic=False) if compiled else model.loss

    def run(tokens_BT, label_B):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            return loss(tokens_BT, label_B)

    return run


def stepper(
    model: Any, loss: Callable[[Any, Any], Any], optimizer: Any, *, multiplier: float
) -> Callable[[Any, Any], Any]:
    """One update of the model: the loss, clipped gradients, fused AdamW."""
    adam = torch.optim.AdamW(
        model.groups(optimizer.learning_rate, multiplier),
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.epsilon,
        weight_decay=0.0,
        fused=True,
    )

    def step(tokens_BT, label_B):
        adam.zero_grad(set_to_none=True)
        found = loss(tokens_BT, label_B)
        found.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
        adam.step()
        return found.detach()

    return step


def draw(model: Any, label_B: Any, *, null: int, guidance: float, greedy: bool = False) -> Any:
    """Tokens (B, T) drawn one after the other; each time all that stand before run anew."""
    images = len(label_B)
    label_R = torch.cat([label_B, torch.full_like(label_B, null)])
    tokens_Bt = torch.zeros(images, 0, dtype=torch.long)
    with torch.inference_mode():
        for _ in range(len(model.slot_T)):
            with_BV, null_BV = model(torch.cat([tokens_Bt, tokens_Bt]), label_R)[:, -1].chunk(2)
            logits_BV = null_BV + guidance * (with_BV - null_BV)
            if greedy:
                next_B1 = logits_BV.argmax(dim=-1, keepdim=True)
            else:
                next_B1 = torch.multinomial(logits_BV.softmax(dim=-1), 1)
            tokens_Bt = torch.cat([tokens_Bt, next_B1], dim=1)
    return tokens_Bt
