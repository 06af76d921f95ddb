"""Values worked out by hand on grids whose voxels are not cubes."""

import numpy as np
import pytest

from promptseg.errors import PromptError
from promptseg.refine.postprocessing import OPERATIONS, Step, postprocess, will_overlap
from promptseg.volume import Segmentation, Volume

SPACING = (1.0, 2.0, 5.0)
AFFINE = np.diag([*SPACING, 1.0])
Where = tuple[slice, ...]


def labels(*boxes: tuple[int, Where], shape=(21, 21, 9), affine=AFFINE) -> Segmentation:
    """Labels painted in order."""
    data = np.zeros(shape, np.uint8)
    for target, where in boxes:
        data[where] = target
    return Segmentation(data, affine)


def cube(i: tuple[int, int], j: tuple[int, int], k: tuple[int, int]) -> Where:
    return slice(*i), slice(*j), slice(*k)


def extent(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last index along each axis."""
    return [(int(found.min()), int(found.max())) for found in np.nonzero(mask)]


VOXEL = (1, cube((10, 11), (10, 11), (4, 5)))


class TestSteps:
    def test_text_round_trip(self) -> None:
        for text in ("largest", "keep:2,n=3", "margin:1,mm=5,to=2,name=CTV,not_into=3+4"):
            assert str(Step.parse(text)) == text

    @pytest.mark.parametrize(
        ("step", "match"),
        [
            ("larges", "did you mean largest"),
            ("largest:0", "targets are '0'"),
            ("largest:a", "targets are 'a'"),
            ("keep,n=0", "n is '0'"),
            ("keep,n=1.5", "whole number"),
            ("keep,m=2", "option 'm' is unknown"),
            ("keep,n", "no option=value"),
            ("keep,n=1,n=2", "given twice"),
            ("smooth,mm=-1", "above 0"),
            ("smooth,mm=nan", "finite"),
            ("smooth,mm=wide", "mm is 'wide'"),
            ("largest,connectivity=8", "6, 18, 26"),
            ("largest:7", "no target 7; there are: 1"),
            ("union:1", "two targets"),
            ("margin,mm=0", "0 in every direction"),
            ("margin,mm=5,left=-2", "grows and shrinks"),
            ("margin,mm=5,not_into=9", "barrier is target 9"),
            ("margin,mm=5,not_above=200", "needs the image"),
            ("margin,mm=5,to=2", "takes one target"),
            ("margin:1,mm=5,to=0", "to is '0'"),
            ("largest,name=a", "goes with to"),
            ("crop_to_body", "needs the image"),
        ],
    )
    def test_mistakes_name_the_value(self, step: str, match: str) -> None:
        with pytest.raises(PromptError, match=match):
            postprocess(labels(VOXEL), [step])

    def test_the_given_result_stays_and_the_report_tells(self) -> None:
        given = labels(VOXEL, (1, cube((0, 2), (0, 1), (0, 1))))
        made = postprocess(given, ["largest", Step("margin", (1,), {"mm": 1})])
        assert given.data.sum() == 3
        told = made.report["postprocessing"]
        assert [line["step"] for line in told] == ["largest", "margin:1,mm=1"]
        assert told[0]["targets"]["1"] == {
            "ml_before": pytest.approx(0.03),
            "ml": pytest.approx(0.02),
        }
        assert "1 of 2 components dropped, 0.01 ml" in told[0]["remarks"][0]
        assert made.provenance["postprocessing"] == ["largest", "margin:1,mm=1"]

    def test_nothing_asked_for_nothing_done(self) -> None:
        given = labels(VOXEL)
        assert postprocess(given, []) is given

    def test_an_empty_target_stays_empty(self) -> None:
        empty = Segmentation(np.zeros((5, 5, 5), np.uint8), AFFINE, score={1: 0.2})
        for name, operation in OPERATIONS.items():
            if operation.joins or name == "crop_to_body":
                continue
            made = postprocess(empty, [f"{name},mm=3" if name == "margin" else name])
            assert not made.mask(1).any()
            assert made.targets == (1,)


class TestComponents:
    PARTS = (
        (1, cube((0, 3), (0, 3), (0, 1))),
        (1, cube((10, 12), (10, 12), (3, 4))),
        (1, cube((18, 19), (18, 19), (8, 9))),
    )

    def test_largest(self) -> None:
        assert postprocess(labels(*self.PARTS), ["largest"]).data.sum() == 9

    def test_keep_two(self) -> None:
        assert postprocess(labels(*self.PARTS), ["keep,n=2"]).data.sum() == 13

    def test_keep_by_millilitres_of_a_voxel_of_10_mm3(self) -> None:
        assert postprocess(labels(*self.PARTS), ["keep,min_ml=0.04"]).data.sum() == 13
        assert postprocess(labels(*self.PARTS), ["keep,min_ml=0.041"]).data.sum() == 9

    def test_corners_connect_unless_told(self) -> None:
        corner = labels((1, cube((0, 2), (0, 2), (0, 2))), (1, cube((2, 3), (2, 3), (2, 3))))
        assert postprocess(corner, ["largest"]).data.sum() == 9
        assert postprocess(corner, ["largest,connectivity=6"]).data.sum() == 8

    def test_each_target_on_its_own(self) -> None:
        both = labels(*self.PARTS, (2, cube((5, 6), (5, 6), (5, 6))))
        made = postprocess(both, ["largest"])
        assert [int(made.mask(t).sum()) for t in (1, 2)] == [9, 1]


class TestFillHoles:
    SHELL = cube((2, 9), (2, 9), (2, 7))

    def hollow(self) -> Segmentation:
        return labels((1, self.SHELL), (0, cube((4, 6), (4, 6), (4, 5))))

    def test_a_cavity(self) -> None:
        assert postprocess(self.hollow(), ["fill_holes"]).data.sum() == 7 * 7 * 5

    def test_a_large_one_may_stay(self) -> None:
        assert postprocess(self.hollow(), ["fill_holes,max_ml=0.03"]).data.sum() == 7 * 7 * 5 - 4
        assert postprocess(self.hollow(), ["fill_holes,max_ml=0.04"]).data.sum() == 7 * 7 * 5

    def test_a_tunnel_is_a_hole_of_each_slice_only(self) -> None:
        tunnel = labels((1, self.SHELL), (0, cube((5, 6), (5, 6), (0, 9))))
        assert postprocess(tunnel, ["fill_holes"]).data.sum() == 7 * 7 * 5 - 5
        assert postprocess(tunnel, ["fill_holes,axis=axial"]).data.sum() == 7 * 7 * 5

    def test_another_target_in_the_hole_keeps_its_voxels(self) -> None:
        tumour = labels((1, self.SHELL), (2, cube((4, 6), (4, 6), (4, 5))))
        made = postprocess(tumour, ["fill_holes:1"])
        assert made.mask(2).sum() == 4
        assert not made.layers


class TestSmooth:
    def test_volume_stays_and_a_spike_goes(self) -> None:
        spiked = labels(
            (1, cube((5, 15), (5, 15), (2, 7))),
            (1, cube((15, 20), (10, 11), (4, 5))),
            affine=np.eye(4),
        )
        made = postprocess(spiked, ["smooth,mm=1.5"])
        assert abs(int(made.data.sum()) - int(spiked.data.sum())) <= 4
        assert not made.mask(1)[17:].any()

    def test_thick_slices_are_not_mixed(self) -> None:
        layer = labels((1, cube((4, 17), (4, 17), (4, 5))), affine=np.diag([1, 1, 10.0, 1]))
        made = postprocess(layer, ["smooth,mm=1"])
        assert extent(made.mask(1))[2] == (4, 4)


class TestMargin:
    def test_ten_millimetres_of_1_2_and_5(self) -> None:
        made = postprocess(labels(VOXEL), ["margin,mm=10"])
        assert extent(made.mask(1)) == [(0, 20), (5, 15), (2, 6)]

    def test_is_the_ball_counted_by_hand(self) -> None:
        # |di|, 2|dj|, 5|dk| within 5 mm: dk = 0 holds rows of 11, 9, 7 at dj = 0, 1, 2; dk = 1 one.
        made = postprocess(labels(VOXEL), ["margin,mm=5"])
        assert made.mask(1)[:, :, 4].sum() == 11 + 2 * 9 + 2 * 7
        assert made.mask(1)[:, :, 3].sum() == made.mask(1)[:, :, 5].sum() == 1

    def test_thinner_than_a_slice_is_said(self) -> None:
        told = postprocess(labels(VOXEL), ["margin,mm=4"]).report["postprocessing"][0]
        assert told["remarks"] == [
            "target 1: the margin of 4 mm adds nothing along k, where voxels are 5 mm apart"
        ]

    def test_directions_of_the_patient(self) -> None:
        step = "margin,mm=1,left=4,posterior=4,superior=5"
        made = postprocess(labels(VOXEL), [step])
        assert extent(made.mask(1)) == [(6, 11), (8, 10), (4, 5)]

    def test_directions_follow_a_flipped_and_turned_grid(self) -> None:
        # i runs to the left by 2 mm, j up by 1 mm, k forwards by 5 mm.
        affine = np.array([[-2.0, 0, 0, 0], [0, 0, 5.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])
        made = postprocess(labels(VOXEL, affine=affine), ["margin,left=4,superior=3,anterior=5"])
        assert extent(made.mask(1)) == [(10, 12), (10, 13), (4, 5)]

    def test_a_sheared_grid_is_measured_in_the_world(self) -> None:
        affine = np.eye(4)
        affine[1, 2] = 3.0
        made = postprocess(labels(VOXEL, affine=affine), ["margin,mm=2"])
        found = np.argwhere(made.mask(1)) @ affine[:3, :3].T
        away = np.linalg.norm(found - np.array([10, 10, 4]) @ affine[:3, :3].T, axis=1)
        everywhere = np.indices(made.data.shape).reshape(3, -1).T @ affine[:3, :3].T
        near = np.linalg.norm(everywhere - np.array([10, 10, 4]) @ affine[:3, :3].T, axis=1) <= 2
        assert away.max() <= 2
        assert made.mask(1).sum() == near.sum() > 7

    def test_shrinking(self) -> None:
        block = labels((1, cube((3, 14), (3, 14), (1, 8))))
        made = postprocess(block, ["margin,mm=-4"])
        assert extent(made.mask(1)) == [(7, 9), (5, 11), (1, 7)]

    def test_shrinking_takes_the_edge_of_the_image_for_the_end(self) -> None:
        whole = labels((1, cube((0, 21), (0, 21), (0, 9))))
        assert extent(postprocess(whole, ["margin,mm=-5"]).mask(1)) == [(5, 15), (2, 18), (1, 7)]

    def test_a_clinical_target_volume_holds_the_tumour(self) -> None:
        made = postprocess(labels(VOXEL), ["margin:1,mm=5,to=2,name=CTV"])
        assert made.mask(1).sum() == 1
        assert (made.mask(2) & made.mask(1)).sum() == 1
        assert made.mask(2).sum() == 45
        assert made.labels == {2: "CTV"}
        assert made.data[10, 10, 4] == 1

    def test_behind_a_wall_is_not_reached(self) -> None:
        wall = labels(VOXEL, (2, cube((12, 13), (0, 21), (0, 9))))
        free = postprocess(wall, ["margin:1,mm=10"]).mask(1)
        held = postprocess(wall, ["margin:1,mm=10,not_into=2"]).mask(1)
        assert free[13:].any()
        assert extent(held)[0] == (0, 11)

    def test_not_into_bone_nor_air(self) -> None:
        values = np.zeros((21, 21, 9), np.int16)
        values[12:14], values[:8] = 700, -900
        volume = Volume(values, AFFINE, "CT")
        made = postprocess(labels(VOXEL), ["margin,mm=10,not_above=250,not_below=-300"], volume)
        assert extent(made.mask(1))[0] == (8, 11)

    def test_a_tumour_that_lies_in_the_barrier_keeps_its_own_voxels(self) -> None:
        volume = Volume(np.full((21, 21, 9), 500, np.int16), AFFINE, "CT")
        made = postprocess(labels(VOXEL), ["margin,mm=10,not_above=250"], volume)
        assert made.mask(1).sum() == 1

    def test_at_the_edge_of_the_image_it_is_said(self) -> None:
        edge = labels((1, cube((1, 3), (9, 12), (3, 5))))
        told = postprocess(edge, ["margin,mm=3"]).report["postprocessing"][0]["remarks"]
        assert any("edge of the image" in remark for remark in told)


class TestBoolean:
    def both(self) -> Segmentation:
        grown = labels((1, cube((4, 8), (4, 8), (2, 4))))
        return postprocess(grown, ["margin:1,mm=2,to=2"])

    def test_a_ring(self) -> None:
        given = self.both()
        made = postprocess(given, ["subtract:2+1,to=3,name=ring"])
        assert made.mask(3).sum() == given.mask(2).sum() - 32
        assert not (made.mask(3) & made.mask(1)).any()
        assert made.mask(2).sum() == given.mask(2).sum()

    def test_union_intersect_xor(self) -> None:
        pair = labels((1, cube((0, 4), (0, 4), (0, 1))))
        pair = postprocess(pair, ["margin:1,right=2,to=2"])
        sizes = {
            name: int(postprocess(pair, [f"{name}:1+2,to=3"]).mask(3).sum())
            for name in ("union", "intersect", "xor", "subtract")
        }
        assert sizes == {"union": 24, "intersect": 16, "xor": 8, "subtract": 0}

    def test_in_place_and_in_order(self) -> None:
        made = postprocess(self.both(), ["subtract:2+1", "union:1+2"])
        assert not (made.mask(2) & (made.data == 0)).any()
        assert made.mask(1).sum() == made.mask(2).sum() + 32

    @pytest.mark.parametrize(
        ("steps", "shared"),
        [
            (["largest", "margin,mm=5"], False),
            (["margin:1,mm=5,to=2"], True),
            (["margin:1,mm=5,to=2", "largest:3"], True),
            (["margin:1,mm=5,to=2", "subtract:2+1"], False),
            (["subtract:1+2,to=1"], False),
        ],
    )
    def test_steps_after_which_voxels_are_shared(self, steps: list[str], shared: bool) -> None:
        assert will_overlap([Step.parse(step) for step in steps]) is shared


class TestInterpolation:
    def test_halfway_between_two_squares(self) -> None:
        # Half widths of 2.5 and 6.5 pixels of 1 mm: 4.5 in the middle of the straight sides.
        data = np.zeros((21, 21, 9), np.uint8)
        data[8:13, 8:13, 2] = data[4:17, 4:17, 6] = 1
        made = postprocess(Segmentation(data, np.diag([1, 1, 5.0, 1])), ["interpolate"])
        middle = made.mask(1)[:, :, 4]
        assert np.flatnonzero(middle[:, 10]).tolist() == list(range(6, 15))
        assert np.flatnonzero(middle[10, :]).tolist() == list(range(6, 15))
        areas = made.mask(1).sum((0, 1)).tolist()
        assert areas[:2] == [0, 0]
        assert areas[2:7] == sorted(areas[2:7])
        assert (areas[2], areas[6]) == (25, 169)

    def test_an_oblique_vessel_does_not_vanish(self) -> None:
        data = np.zeros((21, 21, 9), np.uint8)
        data[2:5, 2:5, 0] = data[14:17, 14:17, 4] = 1
        made = postprocess(Segmentation(data, AFFINE), ["interpolate,axis=2"]).mask(1)
        for k in range(1, 4):
            found = np.argwhere(made[:, :, k])
            np.testing.assert_allclose(found.mean(0), 3 + 3 * k, atol=0.5)

    def test_other_axes_and_no_gap(self) -> None:
        sagittal = labels((1, cube((2, 3), (4, 9), (2, 6))), (1, cube((5, 6), (4, 9), (2, 6))))
        made = postprocess(sagittal, ["interpolate"])
        assert extent(made.mask(1)) == [(2, 5), (4, 8), (2, 5)]
        assert made.data.sum() == 4 * 5 * 4
        full = labels((1, cube((2, 8), (2, 8), (2, 5))))
        assert postprocess(full, ["interpolate"]).data.sum() == full.data.sum()

    def test_gaps_along_several_axes_ask(self) -> None:
        corners = labels(VOXEL, (1, cube((2, 3), (2, 3), (1, 2))))
        with pytest.raises(PromptError, match="axes 0, 1, 2: give axis"):
            postprocess(corners, ["interpolate"])


class TestBody:
    def scan(self) -> tuple[Volume, np.ndarray]:
        """A cylinder with a lung in it, on a table, in air."""
        i, j = np.indices((80, 80))
        body = (i - 40) ** 2 + (j - 35) ** 2 <= 25**2
        plane = np.where(body, 40, -1000)
        plane[(i - 40) ** 2 + (j - 35) ** 2 <= 10**2] = -850
        plane[10:70, 66:68] = 300
        volume = np.repeat(plane[:, :, None], 6, axis=2).astype(np.int16)
        known = np.repeat(body[:, :, None], 6, axis=2)
        return Volume(volume, np.diag([2.0, 2.0, 5.0, 1.0]), "CT"), known

    def test_without_the_table_and_with_the_lung(self) -> None:
        volume, body = self.scan()
        everything = Segmentation(np.ones(volume.shape, np.uint8), volume.affine)
        made = postprocess(everything, ["crop_to_body"], volume)
        assert (made.mask(1) != body).mean() < 0.002
        assert not made.mask(1)[:, 66:68].any()

    def test_and_some_way_under_the_skin(self) -> None:
        volume, _ = self.scan()
        everything = Segmentation(np.ones(volume.shape, np.uint8), volume.affine)
        i, j = np.indices((80, 80))
        inner = (i - 40) ** 2 + (j - 35) ** 2 <= 23**2
        made = postprocess(everything, ["crop_to_body,mm=4"], volume).mask(1)[:, :, 3]
        assert (made != inner).sum() <= 60

    def test_nothing_but_air(self) -> None:
        volume = Volume(np.full((9, 9, 9), -1000, np.int16), AFFINE, "CT")
        whole = Segmentation(np.ones((9, 9, 9), np.uint8), AFFINE)
        with pytest.raises(PromptError, match="no body found above -400"):
            postprocess(whole, ["crop_to_body"], volume)
