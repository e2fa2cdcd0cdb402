"""Small dead-leaves data sets shared by the tests of this room, and the place of real files."""

import os
import pathlib

import pytest

from lab.data.sources import open_source


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A data directory that the tests of a session share."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def leaves_100(data_dir):
    """100 training images of dead leaves."""
    return open_source("dead_leaves", split="train", examples=100, data_dir=data_dir)


@pytest.fixture(scope="session")
def real_files():
    """The folder with the real data sets' files; a test that needs it skips where it is absent."""
    beside = pathlib.Path(__file__).parents[2].parent / "shared" / "data"
    folder = pathlib.Path(os.environ.get("TFDS_MANUAL_DIR") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (TFDS_MANUAL_DIR)")
    return folder
