"""The digest of JSON content; light, for the door computes identities before NumPy is loaded."""

import hashlib
import json
from typing import Any


def json_sha256(content: Any) -> str:
    """SHA-256 (hex) of JSON content in a canonical form: sorted keys, no spaces."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
