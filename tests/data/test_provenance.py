"""A part of a split has one digest, whether it is read from images or from a folder of codes."""

import dataclasses
import json

import pytest

from lab.core.errors import LabError
from lab.data.code_format import code_set as of_json
from lab.data.provenance import first_of, provenance_digest
from lab.data.sources import split_spans, stored_split
from tests.data.code_sets import code_set


def provenance(split, examples):
    return {"facts": {"archive": "ab"}, "version": "1.0.0", "split": split, "examples": examples}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("held", [None, 70])
@pytest.mark.parametrize("sizes", [{"train": 1000, "test": 90}, {"train": 80, "validation": 80}])
def test_a_part_is_known_as_the_door_knows_it(sizes, split, held):
    """`held` images in the folder, 40 of them used; the door opens 40 itself."""
    spans = split_spans(sizes, held_out_tenths=1)
    if split not in spans:
        return
    span = spans[split]
    whole = provenance(
        stored_split("d", spans, split, examples=held), held or span.stop - span.start
    )
    opened = provenance(stored_split("d", spans, split, examples=40), 40)
    assert first_of(whole, 40) == opened
    assert first_of(whole, whole["examples"]) == whole


def with_provenance(examples=23):
    known = provenance("train[0:23]", examples)
    what = code_set(examples=examples)
    data = dataclasses.replace(what.data, digest=provenance_digest(known))
    return dataclasses.replace(what, data=data, provenance=known)


def test_a_folder_knows_the_digest_of_its_first_images():
    what = of_json(json.loads(json.dumps(with_provenance().as_json())))
    assert what == with_provenance()
    assert what.digest_of_first(23) == what.data.digest
    assert what.digest_of_first(9) == provenance_digest(provenance("train[0:9]", 9))


def test_a_folder_without_provenance_is_read_and_its_parts_are_named_apart():
    what = of_json(code_set().as_json())
    assert what.provenance is None and "provenance" not in what.as_json()
    assert (what.digest_of_first(23), what.digest_of_first(9)) == ("ab", "ab:9")
    assert what.compared() == {k: v for k, v in what.as_json().items() if k != "provenance"}


def test_a_provenance_that_is_not_the_datas_is_refused():
    content = with_provenance().as_json()
    content["provenance"] = {**content["provenance"], "version": "2.0.0"}
    with pytest.raises(LabError, match="not of the provenance"):
        of_json(content)
