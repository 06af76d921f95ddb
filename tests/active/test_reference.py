import numpy as np
import pytest
import torch
from active_kit import sample
from safetensors.torch import save_file

from promptseg.active.reference import (
    clustered,
    load_reference,
    make_reference,
    save_reference,
)
from promptseg.errors import FormatError

SLICES = [sample(f"case{n}", float(n // 3 * 100 + 1)) for n in range(9)]


class TestMakeReference:
    def test_means_of_the_groups(self):
        made = make_reference(SLICES, "model", 3)
        lengths = sorted((made.vectors**2).sum(1))
        assert np.allclose(lengths, [1, 101, 201])
        assert (made.slices, made.cases) == (9, 9)

    def test_similarity_is_the_squared_distance_to_the_nearest(self):
        made = make_reference(SLICES, "model", 3)
        assert made.similarity(np.zeros(256)) == pytest.approx(1.0)
        assert made.similarity(made.vectors[1]) == pytest.approx(0.0)

    def test_fewer_slices_than_vectors(self):
        assert len(make_reference(SLICES[:4], "model", 10).vectors) <= 4

    def test_tiny_numbers_are_told_apart(self):
        rows = np.concatenate([np.full((5, 256), 1e-9), np.full((5, 256), 3e-9)])
        assert np.allclose(sorted(clustered(rows, 2, 0)[:, 0]), [1e-9, 3e-9], rtol=1e-6)

    @pytest.mark.parametrize(("samples", "k"), [([sample("blank")], 3), (SLICES, 0)])
    def test_refusals(self, samples, k):
        with pytest.raises(FormatError):
            make_reference(samples, "model", k)

    def test_samples_without_prediction_have_no_similarity(self):
        made = make_reference(SLICES, "model", 3)
        blank, known = made.judged([sample("blank"), sample("known", 1.0)])
        assert blank.similarity is None
        assert known.similarity == pytest.approx(0.0, abs=1e-9)


class TestFile:
    def test_round_trip(self, tmp_path):
        made = make_reference(SLICES, "model", 3)
        save_reference(made, tmp_path / "r.safetensors")
        again = load_reference(tmp_path / "r.safetensors", "model")
        assert np.array_equal(again.vectors, made.vectors)
        assert (again.slices, again.cases) == (9, 9)
        assert (tmp_path / "r.safetensors").stat().st_size < 16_000

    def test_other_model_is_refused(self, tmp_path):
        save_reference(make_reference(SLICES, "model", 3), tmp_path / "r.safetensors")
        with pytest.raises(FormatError, match="another model"):
            load_reference(tmp_path / "r.safetensors", "other")

    def test_missing(self, tmp_path):
        with pytest.raises(FormatError, match="no such file"):
            load_reference(tmp_path / "r.safetensors", "model")

    def test_truncated(self, tmp_path):
        path = tmp_path / "r.safetensors"
        save_reference(make_reference(SLICES, "model", 3), path)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(FormatError, match="no file of reference"):
            load_reference(path, "model")

    @pytest.mark.parametrize(
        "vectors", [torch.zeros(3, 5), torch.full((2, 256), float("nan")), torch.zeros(0, 256)]
    )
    def test_unusable_vectors(self, tmp_path, vectors):
        about = {"format": "promptseg-reference-1", "model": "model", "slices": "1", "cases": "1"}
        save_file({"vectors": vectors.double()}, tmp_path / "r.safetensors", about)
        with pytest.raises(FormatError):
            load_reference(tmp_path / "r.safetensors", "model")
