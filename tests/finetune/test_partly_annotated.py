"""Cohorts in which other organs are annotated: what nobody annotated is not learnt as absent."""

from dataclasses import replace

import pytest
import torch
from adapter_kit import config, disc_cases, labelled_disc, write_cohort
from support import tiny_default, tiny_sam

from promptseg.errors import FormatError, VolumeError
from promptseg.finetune.case_loading import organ_cases
from promptseg.finetune.config import load_recipe
from promptseg.finetune.data import Sources, split_cases
from promptseg.finetune.learning import ASKED_MOST, apart_loss, asked_of, dense_loss
from promptseg.finetune.lora import make_learner
from promptseg.finetune.processes import Processes
from promptseg.finetune.trainer import Trainer
from promptseg.finetune.views import ViewMaker
from promptseg.volume import Volume, write

NAMES = {1: "disc", 4: "ring"}


def two_cohorts(folder):
    """Three cases with disc (1) and ring (4), one of which, `other2`, has the disc alone."""
    images, labels = write_cohort(folder, 3)
    for n in range(2):
        _, known = labelled_disc(n)
        data = known.data.copy()
        data[:8, :8] = 4
        write(Volume(data, known.affine), labels / f"case{n}.nii.gz")
    for place in (images, labels):
        (place / "case2.nii.gz").rename(place / "other2.nii.gz")
    return Sources(images, labels)


def chosen(**options):
    return config(label_names=NAMES, annotated={"^other": (1,)}, validation_share=0.0, **options)


class TestRecipe:
    def test_first_pattern_that_matches(self):
        told = config(annotated={"^a": [1], "b": [2, 3]})
        assert told.annotated_in("ab") == (1,)
        assert told.annotated_in("b") == (2, 3)
        assert told.annotated_in("c") is None

    def test_survives_its_file(self, tmp_path):
        told = config(label_names=NAMES, annotated={r'^"x"\d': (1, 4), "é": (4,)})
        told.save(tmp_path / "recipe.toml")
        assert load_recipe(tmp_path / "recipe.toml") == told

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('"^a" = 1', "annotated is .*expected a table"),
            ('"^a" = ["x"]', "annotated is .*expected a table"),
            ('"(" = [1]', "annotated is '\\(', no regular expression"),
        ],
    )
    def test_values(self, tmp_path, line, words):
        (tmp_path / "recipe.toml").write_text(f'organ = "x"\n[annotated]\n{line}\n')
        with pytest.raises(FormatError, match=words):
            load_recipe(tmp_path / "recipe.toml")

    def test_other_objectives_do_not_know_it(self):
        with pytest.raises(FormatError, match="objective semi"):
            chosen(objective="semi")


class TestChecks:
    def test_a_pattern_without_a_case(self, tmp_path):
        told = config(label_names=NAMES, annotated={"^others": (1,)})
        with pytest.raises(FormatError, match="'\\^others' matches none of the 3 cases"):
            split_cases(two_cohorts(tmp_path), told)

    @pytest.mark.parametrize("labels", [(), (1, 2)])
    def test_labels_that_are_not_learned(self, tmp_path, labels):
        told = config(label_names=NAMES, annotated={"^other": labels})
        with pytest.raises(FormatError, match=r"give some of the labels \[1, 4\]"):
            split_cases(two_cohorts(tmp_path), told)

    def test_a_case_that_has_more(self, tmp_path):
        told = config(label_names=NAMES, annotated={"^case": (1,)})
        with pytest.raises(VolumeError, match="case0: label 4 is in it"):
            split_cases(two_cohorts(tmp_path), told)

    def test_cases_know_what_they_miss(self, tmp_path):
        split = split_cases(two_cohorts(tmp_path), chosen())
        cases = organ_cases(split.training, list(split.labels), chosen())
        assert [case.missing for case in cases] == [frozenset(), frozenset(), frozenset({1})]

    def test_the_plan_says_so(self, tmp_path):
        split = split_cases(two_cohorts(tmp_path), chosen())
        assert split.notes == ["1 of 3 cases: annotated are only disc"]


class TestQuestions:
    def test_labels_that_nobody_annotated_are_asked_last(self):
        view = next(iter_views([0, 2, 5, 9]))
        asked = asked_of(view, 11)
        assert set(asked) == {1, 3, 4, 6, 7, 8, 10} & set(asked)
        assert len(asked) == ASKED_MOST

    def test_an_unprompted_view_is_asked_for_what_is_annotated(self):
        for number in range(22):
            view = replace(next(iter_views(range(1, 11))), places=[], prompts=[], number=number)
            assert asked_of(view, 11)[0] == 0


def iter_views(missing):
    """Views of a disc as the second of eleven labels."""
    spec = tiny_default().spec
    cases = [replace(case, slices={1: case.slices[0]}, boxes={1: case.boxes[0]},
                     labels=case.labels * 2, missing=frozenset(missing))
             for case in disc_cases(1)]  # fmt: skip
    maker = ViewMaker(cases, 11, spec, config(absent=0.0))
    return (maker[n] for n in range(8))


class TestLosses:
    def test_a_missing_label_has_no_part(self):
        scores = torch.randn(2, 3, 8, 8).requires_grad_()
        shares = torch.zeros(2, 3, 8, 8)
        shares[:, 0, 2:6, 2:6] = 1
        asked = torch.tensor([[True, False, True], [True, True, True]])
        losses = apart_loss(scores, shares, asked=asked)
        losses.sum().backward()
        assert not scores.grad[0, 1].any()
        assert scores.grad[1, 1].all()
        alone = apart_loss(scores[:1, [0, 2]], shares[:1, [0, 2]])
        torch.testing.assert_close(losses[:1], alone)

    def test_nor_in_the_map_of_the_encoder(self):
        tokens = torch.randn(2, 4).requires_grad_()
        asked = torch.tensor([[True, False]])
        dense_loss(torch.randn(1, 4, 4, 4), tokens, torch.zeros(1, 2, 8, 8), None, asked).backward()
        assert tokens.grad[0].any()
        assert not tokens.grad[1].any()

    @pytest.mark.parametrize("make", [tiny_default, tiny_sam])
    @pytest.mark.parametrize("count", [2, 6])
    def test_a_step_teaches_its_token_nothing(self, make, count):
        """Many labels too, of which only some are asked."""
        backbone = make()
        told = config(dense=0.2 if make is tiny_default else 0.0)
        learner = make_learner(backbone, told, count)
        missing = frozenset({count - 1})
        for known in (False, True):
            cases = [replace(c, missing=missing if known else frozenset()) for c in disc_cases()]
            maker = ViewMaker(cases, count, backbone.spec, told)
            one = Trainer(learner, maker, told, Processes(0, 1, torch.device("cpu")))
            one.learner.modes()
            learner.tokens.grad = None
            one.gradients([maker[n] for n in range(18, 22)])
            assert learner.tokens.grad[0].any()
            assert bool(learner.tokens.grad[count - 1].any()) is not known
