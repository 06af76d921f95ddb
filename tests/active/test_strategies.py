import numpy as np
import pytest
from active_kit import sample

from promptseg.active.strategies import STRATEGIES, strategy
from promptseg.errors import FormatError


def chosen(name: str, samples, count: int, seed: int = 0) -> list[str]:
    found = strategy(name).choose(samples, count, np.random.default_rng(seed))
    return [choice.sample.case for choice in found]


LINE = [sample(f"case{n}", float(n)) for n in range(10)]


class TestStdr:
    def test_takes_half_from_either_end(self):
        assert set(chosen("stdr", LINE, 4)) == {"case0", "case1", "case8", "case9"}

    def test_says_which_end(self):
        found = strategy("stdr").choose(LINE, 4, np.random.default_rng(0))
        reasons = {choice.sample.case: choice.reason for choice in found}
        assert reasons == {
            "case0": "similar",
            "case1": "similar",
            "case8": "dissimilar",
            "case9": "dissimilar",
        }

    def test_odd_number_takes_one_more_dissimilar(self):
        assert set(chosen("stdr", LINE, 3)) == {"case0", "case8", "case9"}

    def test_all_are_chosen_once(self):
        assert sorted(chosen("stdr", LINE, 10)) == [f"case{n}" for n in range(10)]

    def test_what_has_no_prediction_is_least_alike(self):
        found = strategy("stdr").choose([*LINE, sample("blank")], 2, np.random.default_rng(0))
        assert [choice.sample.case for choice in found] == ["blank", "case0"]
        assert "nothing was predicted" in found[0].reason

    def test_one_half_alone(self):
        assert chosen("stdr-similar", LINE, 3) == ["case0", "case1", "case2"]
        assert chosen("stdr-dissimilar", LINE, 3) == ["case9", "case8", "case7"]

    @pytest.mark.parametrize("name", ["stdr", "stdr-similar", "stdr-dissimilar", "cluster"])
    def test_no_prediction_at_all(self, name):
        with pytest.raises(FormatError, match="nothing was predicted"):
            chosen(name, [sample("a"), sample("b")], 1)


class TestDoubts:
    def test_greatest_doubt_first(self):
        samples = [
            sample("sure", 1.0, least_confidence=1.0, margin=9.0, entropy=2.0, uncertainty=0.1),
            sample("unsure", 1.0, least_confidence=5.0, margin=3.0, entropy=8.0, uncertainty=0.9),
        ]
        for name in ("least-confidence", "margin", "entropy", "uncertainty"):
            assert chosen(name, samples, 1) == ["unsure"]

    def test_ties_go_by_name(self):
        assert chosen("entropy", [sample("b", 1.0), sample("a", 1.0)], 2) == ["a", "b"]

    def test_uncertainty_that_was_not_computed(self):
        with pytest.raises(FormatError, match="whole cases"):
            chosen("uncertainty", LINE, 1)


class TestRandom:
    def test_seed_decides(self):
        assert chosen("random", LINE, 5, 3) == chosen("random", LINE, 5, 3)
        assert len({tuple(chosen("random", LINE, 5, seed)) for seed in range(5)}) > 1

    def test_no_case_twice(self):
        assert len(set(chosen("random", LINE, 10))) == 10


class TestCluster:
    def test_one_of_each_group(self):
        samples = [sample(f"near{n}", 1.0 + n / 100) for n in range(4)]
        samples += [sample(f"far{n}", 400.0 + n) for n in range(4)]
        found = chosen("cluster", samples, 2)
        assert {name[:-1] for name in found} == {"near", "far"}

    def test_equal_samples_still_fill_the_budget(self):
        found = chosen("cluster", [sample(f"case{n}", 4.0) for n in range(5)], 3)
        assert len(set(found)) == 3


class TestRegistry:
    def test_names(self):
        assert set(STRATEGIES) == {
            "stdr",
            "stdr-similar",
            "stdr-dissimilar",
            "random",
            "least-confidence",
            "margin",
            "entropy",
            "cluster",
            "uncertainty",
        }

    def test_unknown_name_lists_the_known(self):
        with pytest.raises(FormatError, match="stdr-similar"):
            strategy("std")
