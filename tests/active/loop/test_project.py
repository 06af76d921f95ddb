import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from loop_kit import dies_at, place_and_project, reopened, truth

from promptseg.active.loop.making import make_project, status
from promptseg.active.loop.project import Project
from promptseg.active.loop.store import FILE
from promptseg.errors import FormatError, VolumeError
from promptseg.volume import Segmentation, read


@pytest.fixture
def folder(tmp_path):
    return place_and_project(tmp_path, adapter=False)


@pytest.fixture
def project(folder):
    held = Project(folder, "ann")
    yield held
    held.store.close()


def rewritten(source: Path, target: Path, change) -> Path:
    image = nib.load(source)
    nib.save(change(image), target)
    return target


def times(image, factor: float, kind: str = "u1") -> nib.Nifti1Image:
    """An image with its values multiplied."""
    return nib.Nifti1Image((image.get_fdata() * factor).astype(kind), image.affine)


class TestOpen:
    def test_in_order_and_the_same_until_it_is_accepted(self, project):
        assert project.open() == "case0"
        assert project.open() == "case0"
        project.accept("case0", truth(project.folder, "case0"))
        assert project.open() == "case1"

    def test_two_people_never_get_the_same_case(self, folder):
        found: list[str | None] = []

        def take(who: str) -> None:
            own = Project(folder, who)
            found.append(own.open())
            own.store.close()

        threads = [threading.Thread(target=take, args=(f"person{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == ["case0", "case1", "case2", "case3"]

    def test_no_case_left(self, project):
        for n in range(4):
            project.reject(f"case{n}", "blurred")
        assert project.open() is None

    def test_case_of_someone_else(self, folder, project):
        Project(folder, "bob").open("case2")
        with pytest.raises(FormatError, match="open with bob"):
            project.open("case2")

    def test_case_that_was_left_open_comes_back(self, folder, project):
        Project(folder, "bob").open()
        with project.store.change():
            project.store.put("claim_minutes", 0)
        assert project.open() == "case0"


class TestAccept:
    def test_records_who_what_and_how_long(self, project):
        project.open()
        done = project.accept("case0", truth(project.folder, "case0"), 41.5)
        assert (done.revision, done.seconds, done.held) == (None, 41.5, False)
        row = project.latest(held=False)[0]
        assert (row["name"], row["who"], row["labels"]) == ("case0", "ann", "1")
        kept = read(project.folder / row["mask"]).data
        assert np.array_equal(kept, read(truth(project.folder, "case0")).data)

    def test_time_since_it_was_opened(self, project):
        project.open()
        assert 0 <= project.accept("case0", truth(project.folder, "case0")).seconds < 60

    def test_every_fourth_is_held_back(self, project):
        held = [
            project.accept(f"case{n}", truth(project.folder, f"case{n}")).held for n in range(4)
        ]
        assert held == [False, False, False, True]
        assert [row["name"] for row in project.latest(held=True)] == ["case3"]

    def test_again_needs_to_be_said(self, project):
        project.accept("case0", truth(project.folder, "case0"))
        with pytest.raises(FormatError, match="accepted by ann: give --again"):
            project.accept("case0", truth(project.folder, "case1"))
        project.accept("case0", truth(project.folder, "case1"), again=True)
        rows = project.latest(held=False)
        assert len(rows) == 1
        other = read(truth(project.folder, "case1")).data
        assert np.array_equal(read(project.folder / rows[0]["mask"]).data, other)

    def test_case_that_someone_else_has_open(self, folder, project):
        Project(folder, "bob").open("case0")
        with pytest.raises(FormatError, match="open with bob"):
            project.accept("case0", truth(folder, "case0"))

    def test_turned_mask_is_put_back(self, project, tmp_path):
        turned = rewritten(
            truth(project.folder, "case0"),
            tmp_path / "turned.nii.gz",
            lambda image: image.as_reoriented([[2, 1], [0, -1], [1, 1]]),
        )
        assert read(turned).shape != read(truth(project.folder, "case0")).shape
        project.accept("case0", turned)
        kept = read(project.folder / project.latest(held=False)[0]["mask"])
        assert np.array_equal(kept.data, read(truth(project.folder, "case0")).data)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda i: nib.Nifti1Image(i.get_fdata()[:-1].astype("u1"), i.affine), "shape"),
            (
                lambda i: nib.Nifti1Image(
                    i.get_fdata().astype("u1"), i.affine @ np.diag([1, 1, 1.5, 1])
                ),
                "elsewhere|beside",
            ),
            (
                lambda i: nib.Nifti1Image((i.get_fdata() * 7).astype("u1"), i.affine),
                r"labels \[7\]",
            ),
            (lambda i: nib.Nifti1Image((i.get_fdata() * 0).astype("u1"), i.affine), "--empty"),
            (lambda i: nib.Nifti1Image((i.get_fdata() * 0.5).astype("f4"), i.affine), "whole num"),
        ],
    )
    def test_refusals_change_nothing(self, project, tmp_path, change, words):
        bad = rewritten(truth(project.folder, "case0"), tmp_path / "bad.nii.gz", change)
        with pytest.raises((FormatError, VolumeError), match=words):
            project.accept("case0", bad)
        assert project.case("case0")["status"] == "new"
        assert not (project.folder / "masks").exists()

    @pytest.mark.parametrize("name", ["mask.seg.nrrd", "mask.nrrd"])
    def test_other_formats(self, project, tmp_path, name):
        volume = project.volume("case0")
        known = read(truth(project.folder, "case0")).data
        made = Segmentation.from_volume(volume, known, labels={1: "disc"})
        made.save(tmp_path / name)
        project.accept("case0", tmp_path / name)
        kept = read(project.folder / project.latest(held=False)[0]["mask"])
        assert np.array_equal(kept.data, known)

    def test_structures_are_taken_by_name(self, project):
        volume = project.volume("case0")
        known = read(truth(project.folder, "case0")).data
        both = np.where(known > 0, 2, 1).astype(np.uint8)
        made = Segmentation.from_volume(volume, both, labels={1: "Body", 2: "Disc "})
        project.accept("case0", made)
        kept = read(project.folder / project.latest(held=False)[0]["mask"])
        assert np.array_equal(kept.data, known)

    def test_single_structure_of_another_name_is_the_only_label(self, project):
        known = read(truth(project.folder, "case0")).data
        made = Segmentation.from_volume(project.volume("case0"), known * 5, labels={5: "GTV"})
        project.accept("case0", made)
        kept = read(project.folder / project.latest(held=False)[0]["mask"])
        assert np.array_equal(kept.data, known)

    def test_no_structure_that_is_known(self, project):
        known = read(truth(project.folder, "case0")).data.astype(np.uint8)
        known[0, 0, 0] = 2
        made = Segmentation.from_volume(
            project.volume("case0"), known, labels={1: "heart", 2: "lung"}
        )
        with pytest.raises(FormatError, match="has heart, lung, the project knows disc"):
            project.accept("case0", made)

    def test_empty_mask_is_accepted_where_it_is_meant(self, project, tmp_path):
        blank = rewritten(
            truth(project.folder, "case0"),
            tmp_path / "blank.nii.gz",
            lambda i: times(i, 0),
        )
        project.accept("case0", blank, empty=True)
        assert project.case("case0")["status"] == "accepted"
        assert project.latest(held=False) == []

    def test_revision_of_what_was_corrected(self, project, tmp_path):
        known = truth(project.folder, "case0")
        half = nib.load(known).get_fdata()
        half[:, :, 3:] = 0
        begun = rewritten(
            known, tmp_path / "half.nii.gz", lambda i: nib.Nifti1Image(half.astype("u1"), i.affine)
        )
        done = project.accept("case0", known, shown=begun)
        whole, part = (nib.load(known).get_fdata() > 0).sum(), (half > 0).sum()
        assert done.revision == pytest.approx(100 * (1 - 2 * part / (whole + part)))

    def test_unknown_case(self, project):
        with pytest.raises(FormatError, match="no case 'case9'"):
            project.accept("case9", truth(project.folder, "case0"))


class TestKilled:
    def test_accept_is_whole_or_not_there(self, folder):
        mask = truth(folder, "case0")
        step = 1
        while dies_at(step, lambda: Project(folder, "ann").accept("case0", mask)):
            project = reopened(folder)
            rows = project.latest(held=False)
            states = {"new": 0, "accepted": 1}
            assert len(rows) == states[project.case("case0")["status"]]
            if rows:
                assert read(folder / rows[0]["mask"]).data.any()
                break
            project.store.close()
            step += 1
        assert step > 8
        again = reopened(folder)
        if again.case("case0")["status"] == "new":
            again.accept("case0", mask)
        assert len(again.latest(held=False)) == 1

    def test_init_leaves_a_project_or_none(self, tmp_path):
        place_and_project(tmp_path, adapter=False)
        other = tmp_path / "other"
        dies_at(1, lambda: make_project(other, tmp_path / "images", "disc", "ann"))
        if not (other / FILE).exists():
            make_project(other, tmp_path / "images", "disc", "ann")
        assert status(Project(other, "ann"))["cases"]["new"] == 4


class TestMaking:
    def test_not_twice(self, folder):
        with pytest.raises(FormatError, match="already"):
            make_project(folder, folder.parent / "images", "disc", "ann")

    @pytest.mark.parametrize("options", [{"held_every": 1}, {"order": "best"}, {"organ": " "}])
    def test_bad_options(self, tmp_path, folder, options):
        given = {"organ": "disc", **options}
        organ = given.pop("organ")
        with pytest.raises(FormatError):
            make_project(tmp_path / "new", folder.parent / "images", organ, "ann", **given)
        assert not (tmp_path / "new").exists()

    def test_no_project(self, tmp_path):
        with pytest.raises(FormatError, match="no loop project"):
            Project(tmp_path, "ann")

    def test_damaged_database(self, tmp_path):
        (tmp_path / FILE).write_bytes(b"no database" * 100)
        with pytest.raises(FormatError, match=r"cannot be opened|damaged"):
            Project(tmp_path, "ann")
