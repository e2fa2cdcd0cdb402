"""Named layouts: mesh axes with their sizes (-1: what is left) and rules from logical axes.

`batch` names the mesh axes that split the batch. An axis of a parameter that `rules` does not
name is an error; `None` replicates it.
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
        "rules": {**REPLICATED, "embed": "fsdp"},
    },
    "fsdp_tp": {
        "mesh": {"fsdp": -1, "tensor": 2},
        "batch": ("fsdp",),
        "rules": {
            **REPLICATED,
            "embed": "fsdp",
            "heads": "tensor",
            "mlp": "tensor",
            "vocab": "tensor",
        },
    },
}
