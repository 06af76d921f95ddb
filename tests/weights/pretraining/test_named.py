import numpy as np
import torch

from pretraining.named import ASKED, NamedCase, named_episode, turned

NUMBERS = {"left kidney": 0, "right kidney": 1, "liver": 2, "optic disc": 3, "brain": 4}


def case(**options):
    """Two discs left and right and a bar, each as bright as its label."""
    labels = np.zeros((64, 64, 8), np.uint8)
    labels[8:24, 20:40, 2:6] = 1
    labels[40:56, 20:40, 2:6] = 2
    labels[8:56, 48:56] = 3
    names = {1: "left kidney", 2: "right kidney", 3: "liver"}
    image = (labels * 60).astype(np.uint8)
    return NamedCase("a", "a", image, labels, names=names, body="abdomen", **options)


def episodes(count=40, **options):
    made = (named_episode(case(**options), 64, NUMBERS, ["optic disc", "brain"],
                          np.random.default_rng(n)) for n in range(count))  # fmt: skip
    return [one for one in made if one is not None]


class TestNamedEpisode:
    def test_shapes(self):
        one = episodes()[0]
        assert one.image.shape == (3, 64, 64)
        assert one.masks.shape == (ASKED, 32, 32)
        assert one.concepts.shape == (ASKED,)

    def test_foreign_concepts_are_asked_and_nowhere(self):
        found = [(m, int(c)) for e in episodes() for m, c in zip(e.masks, e.concepts, strict=True)]
        foreign = [mask for mask, concept in found if concept >= 3]
        assert foreign
        assert all(float(mask.max()) == 0 for mask in foreign)

    def test_left_stays_left_where_sides_are_known(self):
        for one in episodes():
            shown = {int(c): m for m, c in zip(one.masks, one.concepts, strict=True) if m.any()}
            if {0, 1} <= set(shown):
                rows = [float((torch.arange(32.0)[:, None] * shown[n]).sum() / shown[n].sum())
                        for n in (0, 1)]  # fmt: skip
                assert rows[0] < rows[1]

    def test_a_structure_of_several_labels(self):
        both = case(groups={(1, 2): "brain"})
        assert both.called["brain"] == (1, 2)

    def test_a_case_without_known_names_gives_none(self):
        bare = case()
        bare.names = {}
        assert named_episode(bare, 64, NUMBERS, ["brain"], np.random.default_rng(0)) is None


class TestTurned:
    def test_image_and_masks_turn_alike(self):
        image = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
        for seed in range(8):
            grey, masks = turned(image, image, np.random.default_rng(seed))
            np.testing.assert_array_equal(grey, masks)
