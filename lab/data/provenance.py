"""What the images of a split come from, and the digest that follows: of a part as of the whole."""

from __future__ import annotations

import hashlib
import json
from typing import Any

Provenance = dict[str, Any]  # facts, version, split (as it is stored), examples


def provenance_digest(provenance: Provenance) -> str:
    """Equal only when the images and their order are equal."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()


def first_of(provenance: Provenance, examples: int) -> Provenance:
    """The provenance of the first so many images, as `open_source` states it of such a part."""
    if examples == provenance["examples"]:
        return provenance
    key, _, span = provenance["split"].partition("[")
    start = int(span.partition(":")[0]) if span else 0
    return {**provenance, "split": f"{key}[{start}:{start + examples}]", "examples": examples}
