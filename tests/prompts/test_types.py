import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import volumes

from promptseg.errors import FormatError, PromptError, PromptsegError
from promptseg.prompts.types import Box, MarginPoints, Mask, Point, PromptSet, Scribble, Text
from promptseg.volume import Volume

VOLUME = Volume(np.zeros((10, 12, 8), np.int16), np.diag([1.0, 1.0, 3.0, 1.0]))
NAN, INF = float("nan"), float("inf")


@st.composite
def voxels_in(draw: st.DrawFn, volume: Volume) -> tuple[int, int, int]:
    return tuple(draw(st.integers(0, side - 1)) for side in volume.shape)


def resolve(prompt: object, volume: Volume = VOLUME) -> object:
    return PromptSet([prompt]).to_voxel(volume)[0]


def refused(prompt: object, words: str) -> None:
    with pytest.raises(PromptError, match=words) as caught:
        PromptSet([Point((1, 1, 1)), prompt]).validate(VOLUME)
    assert str(caught.value).startswith("prompt 2")
    assert "\n" not in str(caught.value)


class TestFrames:
    @given(st.data(), volumes())
    def test_a_point_hits_the_same_voxel(self, data: st.DataObject, volume: Volume) -> None:
        voxel = data.draw(voxels_in(volume))
        hits = set()
        for frame in ("voxel", "ras", "lps"):
            at = volume.to_world(np.array([voxel]), frame)[0]
            found = np.rint(resolve(Point(at, frame=frame), volume).at).astype(int)
            hits.add(int(volume.data[tuple(found)]))
        assert hits == {int(volume.data[voxel])}

    @given(st.data(), volumes())
    def test_a_box_covers_the_same_voxels(self, data: st.DataObject, volume: Volume) -> None:
        one, two = data.draw(voxels_in(volume)), data.draw(voxels_in(volume))
        lo, hi = np.minimum(one, two), np.maximum(one, two) + 1
        for frame in ("voxel", "ras", "lps"):
            faces = np.array([lo, hi]) - (0 if frame == "voxel" else 0.5)
            corners = volume.to_world(faces, frame)
            box = resolve(Box(*corners, frame=frame), volume)
            assert (box.lo, box.hi) == (tuple(lo), tuple(hi))

    @given(st.data(), volumes())
    def test_a_scribble_covers_the_same_voxels(self, data: st.DataObject, volume: Volume) -> None:
        chosen = np.array(data.draw(st.lists(voxels_in(volume), min_size=1, max_size=9)))
        for frame in ("voxel", "ras", "lps"):
            stroke = resolve(Scribble(volume.to_world(chosen, frame), frame=frame), volume)
            assert stroke.voxels.dtype == np.int64
            np.testing.assert_array_equal(stroke.voxels, np.unique(chosen, axis=0))

    def test_printed_millimetres_give_the_same_box(self) -> None:
        affine = np.diag([0.683, 0.683, 2.5, 1.0])
        affine[:3, 3] = -123.456, 98.7, 0.1
        volume = Volume(np.zeros((200, 200, 40), np.int16), affine)
        for lo in range(0, 150, 7):
            faces = np.array([(lo, lo + 3, 4), (lo + 20, lo + 9, 5)]) - 0.5
            corners = volume.to_world(faces).round(2)
            box = resolve(Box(*corners, frame="ras"), volume)
            assert (box.lo, box.hi) == ((lo, lo + 3, 4), (lo + 20, lo + 9, 5))

    def test_flat_box_in_millimetres_is_one_slice(self) -> None:
        box = resolve(Box((1, 1, 6), (5, 5, 6), frame="ras"))
        assert (box.lo, box.hi) == ((2, 2, 2), (6, 6, 3))

    def test_fractional_box_is_enclosed(self) -> None:
        box = resolve(Box((1.5, 1.99, 2.0), (4.2, 5.01, 3.0)))
        assert (box.lo, box.hi) == ((1, 2, 2), (5, 5, 3))

    def test_the_edge_of_the_last_voxel_is_inside(self) -> None:
        resolve(Point((-0.5, 11.5, 7.5)))
        refused(Point((9.51, 0, 0)), "outside")
        last = resolve(Scribble([[9.5, 11.5, -0.5]]))
        np.testing.assert_array_equal(last.voxels, [[9, 11, 0]])


class TestScribble:
    def test_polyline_is_connected(self) -> None:
        stroke = Scribble.polyline([(0, 0, 2), (9, 4, 2), (3, 11, 2)])
        steps = np.abs(np.diff(stroke.voxels, axis=0)).max(axis=1)
        np.testing.assert_array_equal(steps, 1)
        for vertex in ((0, 0, 2), (9, 4, 2), (3, 11, 2)):
            assert vertex in {tuple(voxel) for voxel in stroke.voxels.tolist()}

    def test_polyline_in_millimetres_is_connected(self) -> None:
        affine = np.diag([-0.625, 0.7, 3, 1])
        volume = Volume(np.zeros((40, 40, 8), np.int16), affine)
        corners = volume.to_world(np.array([(0, 0, 2), (30, 20, 2)]), "lps")
        stroke = resolve(Scribble.polyline(corners, frame="lps"), volume)
        assert len(np.unique(stroke.voxels[:, 0])) == 31
        assert set(stroke.voxels[:, 2]) == {2}

    def test_one_vertex_is_a_dot(self) -> None:
        np.testing.assert_array_equal(Scribble.polyline([(1, 2, 3)]).voxels, [[1, 2, 3]])

    def test_from_mask(self) -> None:
        mask = np.zeros(VOLUME.shape, bool)
        mask[2:4, 5, 6] = True
        stroke = Scribble.from_mask(mask, positive=False, target=3)
        np.testing.assert_array_equal(stroke.voxels, [[2, 5, 6], [3, 5, 6]])
        assert (stroke.positive, stroke.target) == (False, 3)

    @pytest.mark.parametrize("step", [0, -1, NAN, INF])
    def test_step_refused(self, step: float) -> None:
        with pytest.raises(PromptError, match="step"):
            Scribble.polyline([(0, 0, 0), (5, 5, 5)], step=step)

    @pytest.mark.parametrize("points", [[], [(1, 2)], [(0, 0, NAN)], [(0, 0, 0), (1e14, 0, 0)]])
    def test_polyline_refused(self, points: list) -> None:
        with pytest.raises(PromptError):
            Scribble.polyline(points)

    def test_a_million_points(self) -> None:
        rng = np.random.default_rng(0)
        stroke = Scribble(rng.integers(0, 8, (1_000_000, 3)))
        assert len(resolve(stroke).voxels) == 512

    def test_the_given_array_is_not_changed(self) -> None:
        voxels = np.array([[1.2, 2.0, 3.0]])
        resolve(Scribble(voxels))
        np.testing.assert_array_equal(voxels, [[1.2, 2.0, 3.0]])


class TestMask:
    def test_dense_of_a_slice(self) -> None:
        plane = np.zeros((10, 8), np.uint8)
        plane[3:5, 2:4] = 7
        mask = resolve(Mask(plane, axis=1, index=11))
        dense = mask.dense(VOLUME.shape)
        assert mask.data.dtype == dense.dtype == bool
        assert dense.sum() == 4
        np.testing.assert_array_equal(dense[:, 11, :], plane > 0)

    def test_dense_of_a_volume(self) -> None:
        full = np.random.default_rng(0).random(VOLUME.shape) > 0.5
        np.testing.assert_array_equal(resolve(Mask(full)).dense(VOLUME.shape), full)


class TestMarginPoints:
    flat = MarginPoints([(2, 4, 3), (6, 1, 3), (8, 6, 3)], target=2)

    def test_become_a_grown_box_and_points(self) -> None:
        box, *points = PromptSet([self.flat]).to_voxel(VOLUME)
        assert box == Box((1, 0, 3), (10, 8, 4), target=2)
        assert points == [
            Point(at, target=2, role="margin") for at in ((2, 4, 3), (6, 1, 3), (8, 6, 3))
        ]

    def test_across_slices_the_box_is_thick(self) -> None:
        deep = MarginPoints([(2, 5, 3), (7, 5, 3), (5, 3, 4), (5, 8, 4), (5, 5, 3), (5, 5, 5)])
        box = PromptSet([deep]).to_voxel(VOLUME)[0]
        assert box == Box((1, 2, 2), (9, 10, 7))

    def test_repeats_count_once_and_fractions_are_rounded(self) -> None:
        given = MarginPoints([(2.2, 4, 3), (6, 1, 3), (1.9, 4, 3), (8, 6, 3)])
        assert given.resolve(VOLUME).points.tolist() == [[2, 4, 3], [6, 1, 3], [8, 6, 3]]

    def test_millimetres(self) -> None:
        volume = Volume(np.zeros((10, 12, 8)), np.diag([0.5, 2.0, 3.0, 1.0]))
        there = MarginPoints([(1, 8, 9), (3, 2, 9), (4, 12, 9)], 2, frame="ras")
        assert there.resolve(volume) == self.flat.resolve(volume)

    def test_a_single_one_is_a_prompt_set(self) -> None:
        assert PromptSet(self.flat).targets == (2,)

    def test_json_round_trip(self) -> None:
        again = PromptSet.from_json(PromptSet([self.flat]).to_json())
        assert again == PromptSet([self.flat])
        assert "MarginPoints" in repr(again[0])


class TestRefusal:
    @pytest.mark.parametrize(
        ("prompt", "words"),
        [
            (Point((1, 2, 99)), r"\(1, 2, 99\), valid \(0, 0, 0\) to \(9, 11, 7\)"),
            (Point((-1, 2, 3)), "outside"),
            (Point((1, 2, 30), frame="ras"), r"voxel \(1, 2, 10\)"),
            (Point((NAN, 0, 0)), "nan"),
            (Point((0, INF, 0)), "inf"),
            (Point((10**400, 0, 0)), "finite"),
            (Point((1, 2)), "three numbers"),
            (Point("abc"), "three numbers"),
            (Point(None), "three numbers"),
            (Point(np.zeros((3, 3))), "not a number"),
            (Point(("1", 2, 3)), "not a number"),
            (Point((True, 2, 3)), "not a number"),
            (Point((1, 1, 1), positive=1), "positive"),
            (Point((1, 1, 1), frame="world"), "'world'.*ras"),
            (Point((1, 1, 1), target=0), "target is 0"),
            (Point((1, 1, 1), target=-3), "target is -3"),
            (Point((1, 1, 1), target=1.0), "target is 1.0"),
            (Point((1, 1, 1), target=True), "target is True"),
            (Point((1, 1, 1), target="1"), "target is '1'"),
            (Point((1, 1, 1), target=70000), "65535"),
            (Box((5, 5, 5), (1, 9, 6)), "inverted"),
            (Box((5, 5, 5), (5, 9, 6)), "empty"),
            (Box((1, 1, 1), (1, 1, 5), frame="ras"), "empty"),
            (Box((1, 1, 1), (1, 1, NAN)), "nan"),
            (Box((-1, 1, 1), (5, 5, 5)), r"valid \(0, 0, 0\) to \(10, 12, 8\)"),
            (Box((1, 1, 1), (5, 5, 9)), "outside"),
            (Box((1, 1), (5, 5)), "three numbers"),
            (Scribble([]), "empty"),
            (Scribble(np.zeros((0, 3))), "empty"),
            (Scribble([[1, 1]]), "shape"),
            (Scribble([[1, 1, 1], [1]]), "coordinates"),
            (Scribble([["1", "2", "3"]]), "coordinates"),
            (Scribble([[1, 1, 1], [1, 1, NAN]]), "1 of 2"),
            (Scribble([[1, 1, 1], [1, 1, 8]]), r"1 of 2 lie outside.*\(1, 1, 8\)"),
            (Mask(np.ones((2, 2, 2), bool)), r"\(2, 2, 2\).*\(10, 12, 8\)"),
            (Mask(np.zeros((10, 12, 8), bool)), "empty"),
            (Mask(np.full((10, 12, 8), 0.5)), "float64"),
            (Mask(np.ones((10, 12), bool)), "shape"),
            (Mask(np.ones((10, 12), bool), axis=2, index=8), "valid 0 to 7"),
            (Mask(np.ones((10, 12), bool), axis=3, index=0), "axis is 3"),
            (Mask(np.ones((10, 12), bool), axis=2), "index is None"),
            (Text(""), "name the target"),
            (Text(" "), "name the target"),
            (Text(5), "name the target"),
            (Text("left atrium", target=0), "target"),
            (MarginPoints([]), "empty"),
            (MarginPoints([(1, 1, 1), (5, 5, 1)]), "2 different margin points: give at least 3"),
            (MarginPoints([(1, 1, 1), (4, 1, 1), (7, 1, 1)]), "line along an axis"),
            (
                MarginPoints([(1, 1, 1), (4, 5, 1), (7, 1, 2), (1, 5, 3)]),
                "at least 5 in 3D, best 6",
            ),
            (MarginPoints([(1, 1, 1), (4, 5, 1), (70, 1, 1)]), "1 of 3 lie outside"),
            (MarginPoints([(1, 1, 1), (4, 5, 1), (7, NAN, 1)]), "1 of 3"),
            (MarginPoints([(1, 1), (4, 5), (7, 1)]), "shape"),
            (MarginPoints([(1, 1, 1), (4, 5, 1), (7, 1, 1)], target=0), "target is 0"),
            ((1, 2, 3), "Point, Box"),
            (None, "Point, Box"),
        ],
        ids=repr,
    )
    def test_named_by_number_and_value(self, prompt: object, words: str) -> None:
        refused(prompt, words)

    @given(
        st.tuples(*[st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.none())] * 3),
        st.tuples(*[st.floats(allow_nan=True)] * 3),
        st.sampled_from(["voxel", "ras", "lps", "", None]),
        st.one_of(st.integers(), st.floats(), st.none()),
        volumes(),
    )
    def test_anything_else_is_a_prompt_error(self, one, two, frame, target, volume) -> None:
        for prompt in (
            Point(one, target=target, frame=frame),
            Box(one, two, target, frame),
            Scribble([one, two], True, target, frame),
        ):
            try:
                PromptSet([prompt]).validate(volume)
            except PromptError:
                continue

    def test_long_values_are_cut(self) -> None:
        with pytest.raises(PromptError) as caught:
            PromptSet([Point(tuple(range(10**5)))]).validate(VOLUME)
        assert "prompt 1" in str(caught.value)[:20]

    @pytest.mark.parametrize("prompts", [5, None])
    def test_not_a_list(self, prompts: object) -> None:
        with pytest.raises(PromptError, match="list of prompts"):
            PromptSet(prompts)


class TestPromptSet:
    prompts = PromptSet([Point((1, 1, 1), target=5), Text("liver"), Point((2, 2, 2), target=5)])

    def test_targets(self) -> None:
        assert self.prompts.targets == (1, 5)
        assert len(self.prompts.for_target(5)) == 2
        assert self.prompts.for_target(9) == PromptSet()

    def test_sequence(self) -> None:
        assert self.prompts[1] == Text("liver")
        assert self.prompts[:1] == PromptSet([self.prompts[0]])
        longer = self.prompts + [Text("spleen", 2)]
        assert (len(longer), len(self.prompts)) == (4, 3)
        assert PromptSet(Text("liver"))[0] == Text("liver")


coordinates = st.tuples(*[st.floats(-1e6, 1e6) | st.integers(-1000, 1000)] * 3)
places = {
    "target": st.integers(1, 99),
    "frame": st.sampled_from(["voxel", "ras", "lps"]),
}
any_prompt = st.one_of(
    st.builds(Point, coordinates, st.booleans(), **places, role=st.none() | st.text()),
    st.builds(Box, coordinates, coordinates, **places),
    st.builds(Scribble, st.lists(coordinates, min_size=1, max_size=5), st.booleans(), **places),
    st.builds(Text, st.text(min_size=1).filter(str.isprintable), target=places["target"]),
    st.builds(
        lambda seed, shape: Mask(np.random.default_rng(seed).random(shape) > 0.5),
        st.integers(0, 99),
        st.tuples(*[st.integers(1, 6)] * 3),
    ),
)


class TestJson:
    @given(st.lists(any_prompt, max_size=6))
    def test_round_trip(self, prompts: list) -> None:
        original = PromptSet(prompts)
        assert PromptSet.from_json(original.to_json()) == original
        assert PromptSet.from_json(original.to_dict()) == original

    def test_files_keep_every_language(self, tmp_path: Path) -> None:
        original = PromptSet([Text("左心房 · ľavá predsieň")])
        original.save(tmp_path / "prompts.json")
        assert PromptSet.load(tmp_path / "prompts.json") == original
        assert "左心房" in (tmp_path / "prompts.json").read_text(encoding="utf-8")

    def test_numpy_values(self) -> None:
        box = Box(np.array([1, 2, 3]), np.array([4, 5, 6]), target=np.int64(2))
        assert json.loads(PromptSet([box]).to_json())["prompts"][0] == {
            "type": "box",
            "lo": [1, 2, 3],
            "hi": [4, 5, 6],
            "target": 2,
            "frame": "voxel",
        }

    def test_masks_are_small(self) -> None:
        mask = np.zeros((100, 100, 50), bool)
        mask[20:60, 30:70, 10] = True
        original = PromptSet([Mask(mask), Mask(mask[:, :, 10], 2, axis=2, index=10)])
        text = original.to_json()
        assert len(text) < 20_000
        assert PromptSet.from_json(text) == original

    def test_nan_is_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(PromptError, match="cannot be written"):
            PromptSet([Point((NAN, 0, 0))]).save(tmp_path / "a.json")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("[]", "format"),
            ("5", "format"),
            ('{"format": "other"}', "format"),
            ('{"format": "promptseg-prompts", "version": 99}', "99"),
            ('{"format": "promptseg-prompts", "version": 1}', "list"),
        ],
    )
    def test_malformed_file(self, tmp_path: Path, text: str, words: str) -> None:
        path = tmp_path / "prompts.json"
        path.write_text(text)
        with pytest.raises(PromptError, match=words) as caught:
            PromptSet.load(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize(
        ("record", "words"),
        [
            (5, "type"),
            ({"type": "circle"}, "type"),
            ({"type": ["point"]}, "type"),
            ({"type": "point"}, "at"),
            ({"type": "point", "at": [1, 2, 3], "colour": 1}, "colour"),
            ({"type": "mask", "shape": [2, 2], "runs": [1, 2]}, "runs add up to 3"),
            ({"type": "mask", "shape": [2, 2], "runs": [5, -1]}, "runs"),
            ({"type": "mask", "shape": [10**6] * 3, "runs": [10**18]}, "voxels"),
            ({"type": "mask", "shape": "big", "runs": [4]}, "shape"),
            ({"type": "mask", "shape": [], "runs": [1]}, "shape"),
        ],
        ids=repr,
    )
    def test_malformed_record(self, record: object, words: str) -> None:
        content = {"format": "promptseg-prompts", "version": 1, "prompts": [record]}
        with pytest.raises(PromptError, match=words) as caught:
            PromptSet.from_json(json.dumps(content), source="p.json")
        assert str(caught.value).startswith("p.json: prompt 1")

    def test_unreadable(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="cannot be read"):
            PromptSet.load(tmp_path / "missing.json")
        (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(PromptError, match="UTF-8"):
            PromptSet.load(tmp_path / "binary.json")

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["type", "at", "lo", "hi", "voxels", "shape", "runs", "target"]
                    ),
                    inner | st.sampled_from(["point", "box", "scribble", "mask", "text"]),
                )
            ),
            max_leaves=8,
        )
    )
    def test_any_content_is_read_or_refused(self, record: object) -> None:
        content = {"format": "promptseg-prompts", "version": 1, "prompts": [record]}
        try:
            PromptSet.from_json(content).validate(VOLUME)
        except PromptsegError:
            return


def test_import_is_light() -> None:
    code = (
        "import sys, promptseg.prompts.types; "
        "print(sorted({'torch', 'transformers', 'nibabel', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestRoles:
    VOLUME = Volume(np.zeros((8, 8, 8), np.uint8), np.eye(4))

    @pytest.mark.parametrize("role", ["mine", "", "Correction"])
    def test_an_unknown_role_would_change_the_answer_unseen_and_is_refused(self, role) -> None:
        with pytest.raises(PromptError, match="use correction, refine, correction"):
            PromptSet([Point((1, 1, 1), role=role)]).validate(self.VOLUME)
        with pytest.raises(PromptError, match=f"role is {role!r}"):
            PromptSet([Scribble(np.ones((1, 3)), role=role)]).validate(self.VOLUME)

    @pytest.mark.parametrize("role", [None, "correction", "refine", "correction+refine", "margin"])
    def test_the_known_ones_are_kept(self, role) -> None:
        (point,) = PromptSet([Point((1, 1, 1), role=role)]).to_voxel(self.VOLUME)
        assert point.role == role
