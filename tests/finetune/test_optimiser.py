"""What takes the steps of a training: which parameters go to Muon, which to AdamW."""

import json

import pytest
import torch
from adapter_kit import config, disc_cases
from support import tiny_default, tiny_sam

from promptseg.errors import AdapterError
from promptseg.finetune.lora import make_learner
from promptseg.finetune.optimiser import LEAST_SIDE, MUON_RATIO, stepped_by
from promptseg.finetune.processes import Processes
from promptseg.finetune.state import load_state
from promptseg.finetune.trainer import Trainer
from promptseg.finetune.views import ViewMaker

ALONE = Processes(0, 1, torch.device("cpu"))


def trainer(make=tiny_default, folder=None, about=None, **options) -> Trainer:
    chosen, backbone = config(**{"optimiser": "muon", **options}), make()
    learner = make_learner(backbone, chosen, 1)
    views = ViewMaker(disc_cases(), 1, backbone.spec, chosen)
    return Trainer(learner, views, chosen, ALONE, folder, about)


def taken(one: Trainer, factor: float) -> set[str]:
    """Names of the parameters that learn at a multiple of the rate."""
    ids = {id(p) for g in one.optimiser.param_groups if g["factor"] == factor for p in g["params"]}
    return {name for name, p in one.parameters.items() if id(p) in ids}


@pytest.mark.parametrize("make", [tiny_default, tiny_sam])
class TestShares:
    def test_every_parameter_is_stepped_once(self, make):
        one = trainer(make)
        stepped = [id(p) for group in one.optimiser.param_groups for p in group["params"]]
        assert sorted(stepped) == sorted(id(p) for p in one.parameters.values())

    def test_muon_takes_matrices_that_are_trained_whole(self, make):
        one = trainer(make, token_rate=2.0)
        muon = taken(one, MUON_RATIO)
        assert muon
        assert not muon & one.learner.lora.keys()
        assert "tokens" not in muon
        for name in muon:
            parameter = one.parameters[name]
            assert min(len(parameter), parameter[0].numel()) >= LEAST_SIDE
            assert not any(part in name for part in ("embed", "norm", "bias", "names."))

    def test_adamw_takes_all_where_it_is_asked_for(self, make):
        one = trainer(make, optimiser="adamw", token_rate=2.0)
        assert taken(one, 1.0) | taken(one, 2.0) == one.parameters.keys()

    def test_auto_is_what_was_measured_for_the_network(self, make):
        own = make is tiny_default
        assert list(trainer(make, optimiser="auto").optimiser.parts) == ["adamw", *["muon"] * own]

    def test_adapters_of_low_rank_alone_are_left_to_adamw(self, make):
        one = trainer(make, decoder="lora")
        assert list(one.optimiser.parts) == ["adamw"]


class TestAuto:
    @pytest.mark.parametrize(("family", "strokes", "kind"), [
        ("promptseg", False, "muon"), ("promptseg", True, "adamw"), ("sam", False, "adamw"),
    ])  # fmt: skip
    def test_muon_only_where_it_was_better(self, family, strokes, kind):
        assert stepped_by("auto", family, strokes) == kind
        assert stepped_by("muon", family, strokes) == "muon"


class TestSteps:
    def test_both_parts_move(self):
        one = trainer(steps=400, warmup=0)
        before = one.weights.copies()
        one.update([one.views[n] for n in range(2)])
        moved = {n for n, p in one.parameters.items() if not torch.equal(p, before[n])}
        assert taken(one, MUON_RATIO) & moved
        assert one.learner.lora.keys() & moved

    def test_the_rate_of_muon_follows_the_schedule(self):
        one = trainer(steps=400, warmup=10)
        one.update([one.views[0]])
        rates = {g["factor"]: g["lr"] for g in one.optimiser.param_groups}
        assert rates[MUON_RATIO] == pytest.approx(MUON_RATIO * rates[1.0])


class TestEarlierRuns:
    def test_a_run_from_before_the_option_goes_on_with_adamw_only(self, tmp_path):
        now = config(optimiser="adamw").to_dict()
        one = trainer(folder=tmp_path, about={k: v for k, v in now.items() if k != "optimiser"},
                      optimiser="adamw")  # fmt: skip
        one.save()
        assert load_state(tmp_path, now) is not None
        with pytest.raises(AdapterError, match="optimiser was 'adamw' and is now 'muon'"):
            load_state(tmp_path, json.loads(json.dumps(now | {"optimiser": "muon"})))

    def test_its_momenta_are_taken_up(self):
        begun, again = (trainer(steps=400, warmup=0, optimiser="adamw") for _ in range(2))
        begun.update([begun.views[0]])
        again.optimiser.load_state_dict(begun.optimiser.parts["adamw"].state_dict())
        held, taken_up = (one.optimiser.parts["adamw"].state_dict() for one in (begun, again))
        assert held["state"].keys() == taken_up["state"].keys()
        assert all(torch.equal(held["state"][n]["exp_avg"], taken_up["state"][n]["exp_avg"])
                   for n in held["state"])  # fmt: skip
