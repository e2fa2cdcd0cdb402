"""Named layouts: mesh axes with their sizes and rules from logical axes.

A size of -1 is what is left; "slices" is the number of slices that a pod's devices lie in, and 2
where all lie in one, or config.execution.replicas. The first axis is the one that goes across
slices. config.execution.tensor gives the axis "tensor" another size. `batch` names the mesh axes
that split the batch. An axis of a parameter that `rules` does not name is an error; `None`
replicates it.
"""

REPLICATED = {
    "layers": None,
    "embed": None,
    "embed_out": None,
    "heads": None,
    "mlp": None,
    "vocab": None,
    "classes": None,
    "slots": None,
    "positions": None,
    "features": None,
    "condition": None,
    "modulation": None,
    "denoiser": None,
    "kernel_rows": None,
    "kernel_columns": None,
    "channels_in": None,
    "channels_out": None,
    "codes": None,
}

LAYOUTS = {
    "ddp": {"mesh": {"data": -1}, "batch": ("data",), "rules": REPLICATED},
    "fsdp": {
        "mesh": {"fsdp": -1},
        "batch": ("fsdp",),
        "rules": {**REPLICATED, "embed": "fsdp", "denoiser": "fsdp"},
    },
    "hsdp": {  # sharded inside a slice, replicated across: gradients alone go between slices
        "mesh": {"replica": "slices", "fsdp": -1},
        "batch": ("replica", "fsdp"),
        "rules": {**REPLICATED, "embed": "fsdp", "denoiser": "fsdp"},
    },
    "fsdp_tp": {
        "mesh": {"fsdp": -1, "tensor": 2},
        "batch": ("fsdp",),
        "rules": {
            **REPLICATED,
            "embed": "fsdp",
            "denoiser": "fsdp",
            "heads": "tensor",
            "mlp": "tensor",
            "vocab": "tensor",
        },
    },
}
