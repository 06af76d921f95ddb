"""When an engine looks at whole targets with the coarse 3D view."""

import numpy as np
import pytest
from support import BrightRegion, Looks, bright_volume, dice, discs, filled, segmenter

import promptseg as ps
from promptseg.propagation.coarse import CoarseView

SHAPE = (96, 96, 12)


@pytest.fixture
def looks():
    return Looks()


def lesion(row, column, radius=5):
    return discs(SHAPE, 2, dict.fromkeys(range(4, 8), (row, column, radius)))


def box(row, column, target=1):
    return ps.Box((row - 5, column - 5, 5), (row + 6, column + 6, 6), target=target)


def owner(looks):
    return segmenter(BrightRegion(crop=True), coarse=CoarseView(looks))


class TestLooks:
    def test_a_lone_target_is_looked_at_and_stays_what_it_is(self, looks):
        image = lesion(40, 40)
        found = owner(looks).segment(bright_volume(image), [box(40, 40)])
        assert looks.count == 2
        assert dice(found.data == 1, image) > 0.9

    @pytest.mark.parametrize("choice", [{"consistency": "clean"}, {"stop": "never"},
                                        {"propagate": False}])  # fmt: skip
    def test_not_where_it_was_not_asked_for(self, looks, choice):
        owner(looks).segment(bright_volume(lesion(40, 40)), [box(40, 40)], **choice)
        assert looks.count == 0

    def test_small_targets_among_many_stay_as_tracked(self, looks):
        places = [(12 + 18 * n, 20) for n in range(5)]
        image = np.any([lesion(*place) for place in places], 0)
        prompts = [box(*place, target=n + 1) for n, place in enumerate(places)]
        found = owner(looks).segment(bright_volume(image), prompts)
        assert looks.count == 0
        assert dice(found.data > 0, image) > 0.9

    def test_the_report_says_which_view(self, looks):
        view = CoarseView(looks, "0" * 64)
        whole = segmenter(BrightRegion(crop=True), coarse=view)
        found = whole.segment(bright_volume(lesion(40, 40)), [box(40, 40)])
        assert found.report["coarse"] == "0" * 64


class Narrow(Looks):
    """Sees the middle of its first view alone, and at the second look all that is bright."""

    def forward(self, x):
        first = self.count == 0
        logits, quality = super().forward(x)
        if first:
            logits[..., :16] = logits[..., -16:] = -10
        return logits, quality


class TestLongTargets:
    def test_a_target_longer_than_the_view_is_followed_to_its_ends(self):
        shape = (64, 64, 70)
        image = discs(shape, 2, dict.fromkeys(range(4, 66), (30, 34, 5)))
        whole = segmenter(BrightRegion(crop=True), coarse=CoarseView(Narrow()))
        prompt = ps.Box((25, 29, 20), (36, 40, 21))
        found = whole.segment(bright_volume(image), [prompt], axis=2).data == 1
        assert filled(found, 2) == filled(image, 2)


class TestPreview:
    def session(self, looks, image, *prompts, **choices):
        session = owner(looks).session(bright_volume(image), **choices)
        session.add(*prompts)
        return session

    def test_one_look_shows_the_target_before_anything_is_propagated(self, looks):
        image = lesion(40, 40)
        session = self.session(looks, image, box(40, 40))
        shown = session.preview()
        assert looks.count == 1
        assert dice(shown.data == 1, image) > 0.8
        assert shown.score == {1: pytest.approx(0.5)}

    def test_it_is_no_answer(self, looks):
        session = self.session(looks, lesion(40, 40), box(40, 40))
        session.preview()
        assert session.result is None
        answered = session.propagate()
        session.preview()
        assert session.result is answered

    def test_targets_do_not_share_voxels(self, looks):
        image = lesion(30, 30) | lesion(60, 60)
        shown = self.session(looks, image, box(30, 30), box(60, 60, target=2)).preview()
        assert set(np.unique(shown.data)) == {0, 1, 2}
        assert shown.data[30, 30, 5] == 1
        assert shown.data[60, 60, 5] == 2

    def test_the_file_keeps_its_voxel_order(self, looks):
        image = lesion(40, 60)
        volume = ps.Volume(bright_volume(image).data[::-1].copy(), np.diag([-1.0, 1, 1, 1]))
        session = owner(looks).session(volume)
        session.add(box(95 - 40, 60))
        assert dice(session.preview().data == 1, image[::-1]) > 0.8

    @pytest.mark.parametrize(
        ("prompts", "choices", "said"),
        [([], {}, "no prompt"), ([ps.Point((40, 40, 5), positive=False)], {}, "no foreground"),
         ([box(40, 40)], {"consistency": "clean"}, "needs the coarse 3D view")],
    )  # fmt: skip
    def test_what_cannot_be_shown_is_said(self, looks, prompts, choices, said):
        with pytest.raises(ps.errors.PromptError, match=said):
            self.session(looks, lesion(40, 40), *prompts, **choices).preview()

    def test_words_have_none(self, looks):
        session = self.session(looks, lesion(40, 40))
        session._history.add([ps.Text("liver")])
        with pytest.raises(ps.errors.PromptError, match="words have no preview"):
            session.preview()
