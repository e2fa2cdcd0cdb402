"""Files of features: another number in one is damage."""

import numpy as np

from lab.launch.evaluate_features import Found, read_found, write_found


def test_a_file_of_features_with_another_number_in_it_is_damaged(tmp_path):
    features = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = Found(features, np.zeros((4, 2), np.float32), features.mean(0), np.cov(features.T))
    write_found(tmp_path / "a.npz", found)
    np.testing.assert_array_equal(read_found(tmp_path / "a.npz").features_NF, found.features_NF)
    with np.load(tmp_path / "a.npz") as file:
        content = dict(file)
    content["features_NF"][1, 1] += 1
    np.savez(tmp_path / "b.npz", **content)
    assert read_found(tmp_path / "b.npz") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]
