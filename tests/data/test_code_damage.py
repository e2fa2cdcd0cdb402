"""Damaged and foreign folders of codes: an error that names the file, never wrong codes."""

import json
import shutil

import numpy as np
import pytest

from lab.core.canonical import json_sha256
from lab.core.errors import LabError
from lab.data.code_manifest import MAKING, NAME
from lab.data.code_shards import CodeShards, Verify
from lab.data.code_writer import begin, check_finished, finish, is_sound, reopen, shard_entry
from tests.data.code_sets import code_set, contents, draw, plan, write

SHARD = "codes-00002-of-00004.array_record"
OTHER = "codes-00003-of-00004.array_record"  # as many examples, so as long a file


@pytest.fixture
def folder(tmp_path):
    """A finished folder of 23 images in two views and four shards."""
    write(tmp_path / "codes", draw(code_set()), plan(code_set()))
    return tmp_path / "codes"


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 0x10
    path.write_bytes(data)


def read_all(folder, **options):
    """All codes of all views and labels of a folder."""
    shards = CodeShards(folder, **options)
    rows = [shards.rows(range(len(shards)), view) for view in range(shards.views)]
    return np.stack([row.codes for row in rows], axis=1), rows[0].labels


def edit_manifest(folder, change, *, sealed):
    """Change the manifest's content; sealed: with a digest that fits again."""
    content = json.loads((folder / NAME).read_text())
    change(content)
    if sealed:
        del content["sha256"]
        content["sha256"] = json_sha256(content)
    (folder / NAME).write_text(json.dumps(content))


@pytest.mark.parametrize("options", [{}, {"limit_bytes": 0}, {"verify": Verify.OPEN}])
@pytest.mark.parametrize("file", [NAME, SHARD])
@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.99])
def test_a_flipped_bit_is_an_error_that_names_the_file(folder, file, place, options):
    path = folder / file
    flip(path, int(place * path.stat().st_size))
    with pytest.raises(LabError, match=file):
        read_all(folder, **options)


def test_damage_is_found_when_a_shard_is_first_read(folder):
    flip(folder / SHARD, 70_000)
    shards = CodeShards(folder, limit_bytes=0)
    shards.rows([0, 22])  # the first and the last shard
    with pytest.raises(LabError, match=SHARD):
        shards.rows([11])


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda f: (f / SHARD).write_bytes((f / SHARD).read_bytes()[:-1]), "bytes, .*were written"),
        (lambda f: (f / SHARD).write_bytes(b""), "0 bytes"),
        (lambda f: (f / SHARD).write_bytes((f / SHARD).read_bytes() + b"x"), "were written"),
        (lambda f: (f / SHARD).unlink(), "missing"),
    ],
)
@pytest.mark.parametrize("verify", list(Verify))
def test_lengths_are_checked_on_opening(folder, damage, words, verify):
    damage(folder)
    with pytest.raises(LabError, match=f"{SHARD}: .*{words}"):
        CodeShards(folder, verify=verify, limit_bytes=0)


def test_two_shards_that_changed_places(folder):
    (folder / SHARD).rename(folder / "kept")
    (folder / OTHER).rename(folder / SHARD)
    (folder / "kept").rename(folder / OTHER)
    with pytest.raises(LabError, match=SHARD):
        read_all(folder)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(schema="lab.codes/2"),
        lambda c: c.update(storage="uint8"),
        lambda c: c.update(grid=[3]),
        lambda c: c.update(grid=[9, 1.0]),
        lambda c: c["alphabet"].update(size=-6),
        lambda c: c["alphabet"].update(kind="bytes"),
        lambda c: c["alphabet"].update(size=8),
        lambda c: c["views"].update(name="ten_crop"),
        lambda c: c["views"].update(name=["flip"]),
        lambda c: c["data"].update(examples=22),
        lambda c: c["data"].pop("digest"),
        lambda c: c["data"].update(more=1),
        lambda c: c.update(shards=[]),
        lambda c: c.update(shards=3),
        lambda c: c["shards"].pop(),
        lambda c: c["shards"].reverse(),
        lambda c: c["shards"][2].update(file="../" + SHARD),
        lambda c: c["shards"][2].pop("bytes"),
        lambda c: c["shards"][2].update(xxh3_128="0" * 32),
        lambda c: c.pop("tokenizer"),
    ],
)
def test_an_edited_manifest(folder, change, sealed):
    edit_manifest(folder, change, sealed=sealed)
    other_digest = "0" * 32 in (folder / NAME).read_text()
    with pytest.raises(LabError, match=SHARD if other_digest and sealed else NAME):
        read_all(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 100_000])
def test_a_manifest_that_is_not_one(folder, text):
    (folder / NAME).write_text(text)
    with pytest.raises(LabError, match=NAME):
        CodeShards(folder)


def test_codes_of_another_tokenizer_or_of_other_images(folder):
    shards = CodeShards(folder)
    shards.require()
    shards.require(tokenizer_identity="binary/1:a", data_digest="ab")
    with pytest.raises(LabError, match=f"{folder}: codes of tokenizer binary/1:a, not of vq/1:b"):
        shards.require(tokenizer_identity="vq/1:b", data_digest="ab")
    with pytest.raises(LabError, match="codes of data ab, not of cd"):
        shards.require(data_digest="cd")
    with pytest.raises(LabError, match="manifest.json: data is .*examples 23.* not .*examples 24"):
        check_finished(folder, plan(code_set(examples=24)))


def test_a_shard_of_another_folder(folder, tmp_path):
    write(tmp_path / "other", draw(code_set(), seed=1), plan(code_set()))
    shutil.copy(tmp_path / "other" / SHARD, folder / SHARD)
    with pytest.raises(LabError, match=SHARD):
        read_all(folder)


def test_unverified_damage_is_still_no_wrong_code(folder):
    """ArrayRecord's own hashes: what verify=length leaves to rely on."""
    codes = draw(code_set())
    size = (folder / SHARD).stat().st_size
    for at in range(0, size, 4099):
        flip(folder / SHARD, at)
        try:
            found, labels = read_all(folder, verify=Verify.LENGTH, limit_bytes=0)
        except LabError as error:
            assert SHARD in str(error)
        else:
            assert (found == codes.codes).all() and (labels == codes.labels).all()
        flip(folder / SHARD, at)


def test_random_mutations_give_errors_or_the_right_codes(folder):
    codes = draw(code_set())
    rng = np.random.default_rng(0)
    files = sorted(path for path in folder.iterdir())
    refused = 0
    for _ in range(300):
        path = files[rng.integers(len(files))]
        before = path.read_bytes()
        path.write_bytes(mutate(before, rng))
        try:
            found, labels = read_all(folder, limit_bytes=int(rng.integers(2)) * 2**30)
        except LabError as error:
            assert path.name in str(error)
            refused += 1
        else:
            assert (found == codes.codes).all() and (labels == codes.labels).all()
        path.write_bytes(before)
    assert refused > 250  # the others: white space of the manifest, a byte for itself


def mutate(data, rng):
    """Bytes changed, cut, repeated or left out, somewhere."""
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
    noise = rng.bytes(length)
    return [
        data[:at] + noise + data[at + length :],
        data[:at],
        data[:at] + noise + data[at:],
        data[:at] + data[at + length :],
        data[:at] + data[at : at + length] * 2 + data[at + length :],
    ][rng.integers(5)]


def test_mutations_of_a_half_finished_folder_end_with_the_same_bytes(folder, tmp_path):
    """What is known of a shard is believed only as it was written."""
    whole, codes, made = contents(folder), draw(code_set()), plan(code_set())
    rng = np.random.default_rng(1)
    write(tmp_path / "half", codes, made, skip=(1,))
    half = contents(tmp_path / "half")
    names = [name for name in half if not name.endswith("plan.json")]
    for _ in range(60):
        name = names[rng.integers(len(names))]
        (tmp_path / "half" / name).write_bytes(mutate(half[name], rng))
        sound = [i for i in range(4) if is_sound(tmp_path / "half", made, i)]
        write(tmp_path / "half", codes, made, skip=sound)
        assert contents(tmp_path / "half") == whole
        shutil.rmtree(tmp_path / "half")
        for file, data in half.items():
            (tmp_path / "half" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "half" / file).write_bytes(data)


def test_a_damaged_plan_is_an_error(tmp_path):
    begin(tmp_path, plan(code_set()))
    flip(tmp_path / MAKING / "plan.json", 40)
    with pytest.raises(LabError, match="plan.json"):
        begin(tmp_path, plan(code_set()))


def test_finishing_finds_a_shard_that_was_damaged_meanwhile(tmp_path):
    codes, made = draw(code_set()), plan(code_set())
    write(tmp_path, codes, made, skip=(0,))
    flip(tmp_path / SHARD, 70_000)
    with pytest.raises(LabError, match=SHARD):
        write(tmp_path, codes, made, skip=(1, 2, 3))
    assert shard_entry(tmp_path, made, 2) is None  # so the next try makes it again
    assert write(tmp_path, codes, made, skip=(0, 1, 3)) is not None


def test_a_finished_folder_is_opened_again_to_mend_it(folder):
    codes, made, whole = draw(code_set()), plan(code_set()), contents(folder)
    assert reopen(folder, made, check_finished(folder, made)) == []
    assert contents(folder) == whole
    flip(folder / SHARD, 70_000)
    (folder / OTHER).unlink()
    first, second = reopen(folder, made, check_finished(folder, made))
    assert SHARD in first and OTHER in second and not (folder / NAME).exists()
    assert finish(folder, made) is None
    write(folder, codes, made, skip=(0, 1))
    assert contents(folder) == whole
