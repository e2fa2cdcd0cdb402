"""Reading by index: large images are decoded by threads, in order, and say which one is bad."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from lab.core.errors import LabError
from lab.data import sources
from lab.data.sources import Source, SourceInfo

MAIN = threading.current_thread().name


class Records(list):
    """Encoded images, as ArrayRecord's reader gives them."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


class Parser:
    """A record is an encoded image; its label comes from its length."""

    def __init__(self):
        self.threads = set()

    def parse_example(self, record):
        self.threads.add(threading.current_thread().name)
        return {"image": record, "label": len(record) % 10}


def source_of(images, kind):
    records = Records()
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind)
        records.append(buffer.getvalue())
    shape = (None, None, 3)
    info = SourceInfo("images/1", "train", "train", "d", len(records), 10, shape, {})
    return Source(records, Parser(), info)


def noise(count, side):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize(
    ("side", "cores", "threaded"), [(80, 4, True), (80, 1, False), (20, 4, False)]
)
def test_large_images_are_decoded_by_threads_in_order(monkeypatch, side, cores, threaded):
    monkeypatch.setattr(sources, "core_count", lambda: cores)
    images = noise(12, side)
    source = source_of(images, "png")
    chosen = [7, 0, 11, 3, 3, 8]
    found = source.read(chosen)
    for each, index in zip(found, chosen, strict=True):
        assert np.array_equal(each["image"], images[index])
        assert each["label"] == len(source._records[index]) % 10
    assert (source._parser.threads != {MAIN}) == threaded


def test_a_bad_image_among_large_ones_is_one_line(monkeypatch):
    monkeypatch.setattr(sources, "core_count", lambda: 4)
    source = source_of(noise(6, 80), "png")
    source._records[4] = b"\x00" * 20_000
    with pytest.raises(LabError, match="images/1: train: a record cannot be read: .*identify") as e:
        source.read(range(6))
    assert "\n" not in str(e.value)


def test_no_images_are_no_error():
    assert source_of(noise(2, 20), "png").read([]) == []
