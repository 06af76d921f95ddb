import math

import pytest
import torch
from adapter_kit import answers, random_adapter
from support import tiny_default

from promptseg.active.federated.averaging import Reply, average
from promptseg.active.federated.privacy import Privacy
from promptseg.active.federated.update import (
    check_update,
    distance,
    pack,
    unpack,
    update_of,
    with_update,
)
from promptseg.adapters import AdapterStack
from promptseg.errors import AdapterError, FormatError


@pytest.fixture
def adapter():
    return random_adapter(tiny_default())[0]


def moved(update, by: float):
    return {name: value + by for name, value in update.items()}


class TestUpdate:
    def test_round_trip_answers_alike(self, adapter):
        backbone = tiny_default()
        again = with_update(adapter, unpack(pack(update_of(adapter))))
        token = adapter.tokens[1][None]
        found = []
        for one in (adapter, again):
            stack = AdapterStack(backbone)
            stack.add(one)
            stack.use(one.name)
            found.append(answers(backbone, token))
            stack.remove(one.name)
        assert torch.equal(*found)

    def test_holds_nothing_but_numbers(self, adapter):
        assert all(value.dtype == torch.float32 for value in update_of(adapter).values())
        assert len(pack(update_of(adapter))) < 1 << 20

    @pytest.mark.parametrize("content", [b"", b"pickle" * 10, b"\x80\x04N."])
    def test_what_is_no_safetensors_file(self, content):
        with pytest.raises(AdapterError, match="no whole safetensors"):
            unpack(content)


class TestCheckUpdate:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda u: {**u, "more": torch.zeros(1)}, "differ in 'more'"),
            (lambda u: dict(list(u.items())[1:]), "differ in"),
            (lambda u: {**u, first(u): u[first(u)][..., :-1]}, "has shape"),
            (lambda u: {**u, first(u): u[first(u)].double()}, "float64"),
            (lambda u: {**u, first(u): u[first(u)] * math.nan}, "not finite"),
            (lambda u: moved(u, 10.0), "moved by"),
        ],
    )
    def test_refusals(self, adapter, change, words):
        known = update_of(adapter)
        with pytest.raises(AdapterError, match=words):
            check_update(change(known), known, max_norm=1.0)

    def test_what_may_be_averaged(self, adapter):
        known = update_of(adapter)
        check_update(moved(known, 1e-4), known, max_norm=1.0)


def first(update) -> str:
    return next(iter(update))


class TestAverage:
    def test_weighted_by_cases(self, adapter):
        known = update_of(adapter)
        replies = [Reply("a", moved(known, 1.0), 30), Reply("b", moved(known, 5.0), 10)]
        found = average(replies, known)
        assert found.used == {"a": 30, "b": 10}
        for name, value in found.update.items():
            assert torch.allclose(value, known[name] + 2.0, atol=1e-5)

    def test_bad_reply_is_left_out_and_named(self, adapter):
        known = update_of(adapter)
        bad = {name: value * math.nan for name, value in known.items()}
        found = average([Reply("a", moved(known, 1.0), 3), Reply("b", bad, 3)], known)
        assert list(found.used) == ["a"]
        assert "not finite" in found.refused["b"]
        assert torch.allclose(found.update[first(known)], known[first(known)] + 1.0)

    def test_nothing_usable_changes_nothing(self, adapter):
        known = update_of(adapter)
        found = average([Reply("a", {}, 3)], known)
        assert not found.used
        assert torch.equal(found.update[first(known)], known[first(known)])

    @pytest.mark.parametrize("cases", [0, -5, 10**9])
    def test_site_cannot_claim_any_weight(self, adapter, cases):
        known = update_of(adapter)
        assert "cases" in average([Reply("a", known, cases)], known).refused["a"]


class TestPrivacy:
    def test_far_update_is_clipped(self, adapter):
        known = update_of(adapter)
        found = Privacy(clip=0.5).protected(moved(known, 3.0), known)
        assert distance(found, known) == pytest.approx(0.5, rel=1e-3)

    def test_near_update_is_left_alone(self, adapter):
        known = update_of(adapter)
        near = moved(known, 1e-5)
        found = Privacy(clip=1.0).protected(near, known)
        assert distance(found, near) < 1e-5

    def test_noise_is_as_strong_as_said(self, adapter):
        known = update_of(adapter)
        found = Privacy(clip=0.1, noise=2.0).protected(known, known, seed=1)
        numbers = sum(value.numel() for value in known.values())
        assert distance(found, known) == pytest.approx(0.2 * numbers**0.5, rel=0.05)

    def test_noise_differs_every_time(self, adapter):
        known = update_of(adapter)
        privacy = Privacy(clip=0.1, noise=1.0)
        assert distance(privacy.protected(known, known), privacy.protected(known, known)) > 0

    def test_accountant(self):
        pytest.importorskip("opacus", reason="opacus is not installed: promptseg[federated]")
        strong, weak = Privacy(1.0, 8.0), Privacy(1.0, 1.0)
        assert 0 < strong.epsilon(1) < strong.epsilon(5) < weak.epsilon(5)
        # Gaussian mechanism by hand: rdp(a) = a / (2 s^2), eps = min rdp + log(1/delta) terms.
        assert strong.epsilon(1) < 8**-2 / 2 * 64 + math.log(1e5) / 63

    def test_without_noise_there_is_none(self):
        assert Privacy(1.0).epsilon(3) == math.inf
        assert Privacy(1.0).epsilon(0) == 0.0

    @pytest.mark.parametrize("values", [(None, 1.0), (0.0, 0.0), (1.0, -1.0), (math.nan, 0.0)])
    def test_refusals(self, values):
        with pytest.raises(FormatError):
            Privacy(*values)
