import numpy as np
import pytest
from safetensors.torch import save_file
from text_kit import WIDTH, tiny_tower

from promptseg.errors import WeightsError
from promptseg.text.tower import BYTES, Tokens, load_tower, save_tower
from promptseg.weights import registry as weights


class TestTokens:
    def test_pruned_tokens_come_apart_into_what_is_kept(self):
        plain, few = Tokens(), Tokens([512, 600])
        assert plain.kept == list(range(BYTES))
        for text in ("left atrium", "左心房", "xyzzy 3", ""):
            row = few.encode(text, 77)
            assert row[0] == 1
            assert row[-1] == few.count - 1 == max(row)
            assert all(0 < n < few.count for n in row)
            assert len(row) <= len(plain.encode(text, 77))
        assert len(few.encode("left atrium " * 40, 32)) == 32

    def test_open_clips_own_tokens_where_nothing_is_pruned(self):
        from open_clip import SimpleTokenizer

        numbers = SimpleTokenizer().encode("myocardium of the heart")
        whole = Tokens(numbers)
        assert [whole.kept[n - 2] for n in whole.encode("myocardium of the heart", 77)[1:-1]] == (
            numbers
        )


class TestFile:
    def test_comes_back(self, tmp_path):
        tower = tiny_tower()
        save_tower(tower, tmp_path / "text.safetensors")
        read = load_tower(tmp_path / "text.safetensors")
        words = ["left atrium", "左心房", "something else"]
        assert np.abs(read.embed(words) - tower.embed(words)).max() < 0.05
        assert read.embed(words).shape == (3, WIDTH)
        assert np.allclose(np.linalg.norm(read.embed(words), axis=1), 1, atol=1e-5)
        assert read.threshold == tower.threshold
        assert list(read.concepts) == list(tower.concepts)
        assert read.embed([]).shape == (0, WIDTH)

    def test_together_as_alone(self):
        words = ["liver", "a much longer name of the same thing", "肝"]
        alone = np.concatenate([tiny_tower().embed([w]) for w in words])
        assert np.allclose(tiny_tower().embed(words), alone, atol=1e-5)

    def test_damaged_or_other_files(self, tmp_path):
        path = tmp_path / "text.safetensors"
        save_tower(tiny_tower(), path)
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(WeightsError, match="no whole safetensors file"):
            load_tower(path)
        save_file({}, path, {"format": "pt"})
        with pytest.raises(WeightsError, match="no text tower"):
            load_tower(path)
        save_file({}, path, {"format": "promptseg-text", "version": "1"})
        with pytest.raises(WeightsError, match="does not hold the tower"):
            load_tower(path)

    def test_nowhere(self, monkeypatch):
        monkeypatch.setattr(weights, "locate", lambda name: None)
        with pytest.raises(WeightsError, match=r"text\.safetensors, which understands words"):
            load_tower()
