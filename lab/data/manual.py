"""Files that the user fetched: found in the manual directory and checked against their digest."""

from __future__ import annotations

import hashlib
import pathlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable

from lab.core.errors import LabError


def find_file(name: str, manual_dir: pathlib.Path | None, *, folders: tuple[str, ...]):
    """The path of a file in the manual directory or one of its named folders; None: not there."""
    if manual_dir is None:
        return None
    places = [manual_dir, *(manual_dir / folder for folder in folders)]
    return next((place / name for place in places if (place / name).is_file()), None)


def missing(name: str, manual_dir: pathlib.Path, *, folders: tuple[str, ...]) -> LabError:
    """The error for a file that is in none of the folders."""
    allowed = ", ".join([".", *folders])
    return LabError(f"{manual_dir}: {name} is not there; looked in its folders {allowed}")


def verify(path: pathlib.Path, sha256: str) -> pathlib.Path:
    """The path, once its bytes have the expected SHA-256; otherwise one clear error."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise LabError(f"{path}: wrong checksum: sha256 {found}; expected {sha256}")
    return path


def require_network(urls: Iterable[str], *, what: str) -> None:
    """Raise when the hosts of these addresses have no name here: TFDS itself retries for minutes.

    Behind a proxy the names are the proxy's business, and nothing is asked.
    """
    if urllib.request.getproxies():
        return
    for host in sorted({urllib.parse.urlsplit(url).hostname or "" for url in urls}):
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            raise LabError(
                f"{what}: cannot be downloaded: {host}: {error}; allowed: a network, or its files "
                f"in data.manual_dir (TFDS_MANUAL_DIR)"
            ) from error
