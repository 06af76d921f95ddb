import http.server
import json
import pickle
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from promptseg.errors import WeightsError
from promptseg.weights import registry as weights

CONTENT = bytes(range(256)) * 5000


class Files(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; how well is up to the server's attributes."""

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.server.missing:
            return self.send_error(404)
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and self.server.resumes else 0
        if start > len(CONTENT):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.server.stop_at])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    served.ranges, served.missing, served.resumes, served.stop_at = [], False, True, None
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(weights, "cache_dir", lambda: folder)
    monkeypatch.delenv("PROMPTSEG_WEIGHTS", raising=False)
    return folder


@pytest.fixture
def digest(tmp_path):
    (tmp_path / "whole").write_bytes(CONTENT)
    return weights.sha256_file(tmp_path / "whole")


@pytest.fixture
def toy(server, cache, digest, monkeypatch):
    """Puts an entry `toy`, served from this machine, in the registry."""

    def add(**changes):
        address = f"http://127.0.0.1:{server.server_address[1]}/toy.pth"
        about = {"url": address, "size": len(CONTENT), "sha256": digest, **changes}
        entry = weights.Entry("toy", "segment-anything", "toy", "toy.pth", "MIT", "here", **about)
        monkeypatch.setattr(weights, "registry", lambda: {"toy": entry})
        return entry

    return add


class TestRegistry:
    def test_official_files(self):
        entries = weights.registry()
        assert set(entries) == {
            "default",
            "sam_vit_b",
            "sam_vit_l",
            "sam_vit_h",
            "medsam_vit_b",
            "mobile_sam",
            "sam2.1_tiny",
            "sam2.1_small",
            "sam2.1_base_plus",
            "sam2.1_large",
            "text",
            "corrector",
            "coarse",
            "step",
            "ranking",
        }
        for entry in entries.values():
            assert entry.sha256 is None or len(entry.sha256) == 64
            if entry.url is not None:
                assert entry.licence == "Apache-2.0"
                assert entry.url.endswith(f"/{entry.file}")
        assert entries["sam_vit_b"].size == 375042383
        assert entries["medsam_vit_b"].pixels == "unit"

    def test_answers_without_heavy_imports(self):
        script = (
            "import sys, promptseg.weights.registry as w; w.registry(); w.locate('sam_vit_b');"
            "heavy = ('torch', 'transformers', 'scipy', 'nibabel', 'safetensors');"
            "print([name for name in heavy if name in sys.modules])"
        )
        found = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == "[]"

    def test_unknown_name_lists_the_near_ones(self):
        with pytest.raises(WeightsError, match=r"'medsam'.*Did you mean medsam_vit_b"):
            weights.lookup("medsam")

    def test_malformed_registry(self, tmp_path, monkeypatch):
        (tmp_path / "registry.toml").write_text("[default]\nfamily = 'x'\nunknown = 1\n")
        monkeypatch.setattr(weights, "asset_dir", lambda name: tmp_path)
        with pytest.raises(WeightsError, match=r"registry\.toml"):
            weights.registry()


class TestLocate:
    def test_order_of_the_folders(self, tmp_path, cache, toy, monkeypatch):
        toy()
        package, named = tmp_path / "package", tmp_path / "named"
        monkeypatch.setattr(weights, "asset_dir", lambda name: package)
        monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(named))
        assert weights.locate("toy") is None
        for folder in (package, cache, named):
            folder.mkdir(parents=True)
            (folder / "toy.pth").write_bytes(b"x")
            assert weights.locate("toy") == folder / "toy.pth"


class TestPull:
    def test_downloads_once(self, toy, server, cache):
        toy()
        path = weights.pull("toy")
        assert path == cache / "toy.pth"
        assert path.read_bytes() == CONTENT
        assert weights.pull("toy") == path
        assert server.ranges == [None]
        assert not list(cache.glob("*.part"))

    def test_resumes(self, toy, server, cache):
        toy()
        cache.mkdir()
        (cache / "toy.pth.part").write_bytes(CONTENT[:1000])
        assert weights.pull("toy").read_bytes() == CONTENT
        assert server.ranges == ["bytes=1000-"]

    def test_begins_again_where_the_server_cannot_resume(self, toy, server, cache):
        toy()
        server.resumes = False
        cache.mkdir()
        (cache / "toy.pth.part").write_bytes(b"junk" * 10)
        assert weights.pull("toy").read_bytes() == CONTENT

    def test_begins_again_where_the_part_is_too_long(self, toy, server, cache):
        toy(size=None)
        cache.mkdir()
        (cache / "toy.pth.part").write_bytes(CONTENT + b"more")
        assert weights.pull("toy").read_bytes() == CONTENT
        assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]

    def test_broken_connection_keeps_the_part(self, toy, server, cache):
        toy()
        server.stop_at = 70_000
        with pytest.raises(WeightsError, match=r"after 70000 of 1280000 bytes.*resume"):
            weights.pull("toy")
        assert not (cache / "toy.pth").exists()
        server.stop_at = None
        assert weights.pull("toy").read_bytes() == CONTENT
        assert server.ranges == [None, "bytes=70000-"]

    def test_wrong_digest_is_discarded(self, toy, cache):
        toy(sha256="0" * 64)
        with pytest.raises(WeightsError, match=r"sha256 0000.*discarded"):
            weights.pull("toy")
        assert not list(cache.glob("toy.pth*[!k]"))

    def test_wrong_size_is_discarded(self, toy, cache):
        toy(size=len(CONTENT) + 1, sha256=None)
        with pytest.raises(WeightsError, match=r"1280000 bytes .* not 1280001"):
            weights.pull("toy")

    def test_unknown_digest_is_printed_recorded_and_checked(self, toy, cache, digest, capsys):
        toy(sha256=None)
        path = weights.pull("toy")
        assert digest in capsys.readouterr().err
        assert json.loads((cache / "digests.json").read_text()) == {"toy.pth": digest}
        path.write_bytes(b"changed")
        with pytest.raises(WeightsError, match=f"not the toy that is expected.*{digest}"):
            weights.pull("toy")

    def test_no_network_says_where_to_put_the_file(self, toy, cache):
        toy(url="http://127.0.0.1:9/toy.pth")
        with pytest.raises(WeightsError) as caught:
            weights.pull("toy")
        for said in ("toy.pth", "http://127.0.0.1:9/toy.pth", str(cache / "toy.pth"), "_WEIGHTS"):
            assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_missing_on_the_server(self, toy, server):
        toy()
        server.missing = True
        with pytest.raises(WeightsError, match="404"):
            weights.pull("toy")

    def test_shipped_file_that_is_not_there(self, toy, tmp_path, monkeypatch):
        toy(url=None)
        monkeypatch.setattr(weights, "asset_dir", lambda name: tmp_path / "package")
        with pytest.raises(WeightsError, match=r"toy.pth .*ships with promptseg"):
            weights.pull("toy")


class TestVerify:
    def test_states(self, toy, cache, digest):
        toy()
        assert weights.verify("toy")[0].status == "missing"
        path = weights.pull("toy")
        found = weights.verify()
        assert [(one.status, one.path, one.sha256) for one in found] == [("ok", path, digest)]
        path.write_bytes(b"changed")
        assert weights.verify("toy")[0].status == "mismatch"

    def test_recorded_and_unrecorded(self, toy, cache):
        toy(sha256=None)
        weights.pull("toy")
        assert weights.verify("toy")[0].status == "recorded"
        (cache / "digests.json").unlink()
        assert weights.verify("toy")[0].status == "unrecorded"

    def test_damaged_record(self, toy, cache):
        toy(sha256=None)
        weights.pull("toy")
        (cache / "digests.json").write_text("{")
        with pytest.raises(WeightsError, match=r"digests\.json"):
            weights.verify("toy")


class Bomb:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return Path.touch, (self.sentinel,)


STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2)}


class TestLoadState:
    def same(self, found):
        assert set(found) == set(STATE)
        assert all(torch.equal(found[name], STATE[name]) for name in found)

    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
    def test_pickled(self, tmp_path, suffix):
        torch.save(STATE, tmp_path / f"a{suffix}")
        self.same(weights.load_state(tmp_path / f"a{suffix}"))

    @pytest.mark.parametrize("nest", ["model", "state_dict", "model_state_dict"])
    def test_nested(self, tmp_path, nest):
        torch.save({nest: STATE, "epoch": 3}, tmp_path / "a.pth")
        self.same(weights.load_state(tmp_path / "a.pth"))

    def test_parallel_prefix(self, tmp_path):
        torch.save({f"module.{name}": t for name, t in STATE.items()}, tmp_path / "a.pth")
        self.same(weights.load_state(tmp_path / "a.pth"))

    @pytest.mark.parametrize("nested", [False, True])
    def test_payload_never_runs(self, tmp_path, nested):
        sentinel, path = tmp_path / "ran", tmp_path / "a.pth"
        torch.save({"model": STATE, "x": Bomb(sentinel)} if nested else Bomb(sentinel), path)
        with pytest.raises(WeightsError, match="refused") as caught:
            weights.load_state(path)
        assert not sentinel.exists()
        assert "\n" not in str(caught.value)

    def test_bare_pickle_never_runs(self, tmp_path):
        sentinel, path = tmp_path / "ran", tmp_path / "a.pth"
        path.write_bytes(pickle.dumps(Bomb(sentinel)))
        with pytest.raises(WeightsError):
            weights.load_state(path)
        assert not sentinel.exists()

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    @pytest.mark.parametrize("keep", [0, 1, 20, 0.5, 0.99])
    def test_truncated(self, tmp_path, suffix, keep):
        torch.save(STATE, tmp_path / "a.pth")
        weights.convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
        path = tmp_path / f"a{suffix}"
        whole = path.read_bytes()
        path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
        with pytest.raises(WeightsError, match=path.name) as caught:
            weights.load_state(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_text(self, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        path.write_text("this is a web page that says 404, not a checkpoint\n" * 20)
        with pytest.raises(WeightsError, match=path.name):
            weights.load_state(path)

    def test_some_other_archive(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr("readme.txt", "no tensors here")
        with pytest.raises(WeightsError, match=r"a\.pth"):
            weights.load_state(tmp_path / "a.pth")

    @pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {}, {"epoch": 3}])
    def test_no_state_dict(self, tmp_path, content):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(WeightsError, match=r"a\.pth holds"):
            weights.load_state(tmp_path / "a.pth")

    def test_missing_file_and_odd_name(self, tmp_path):
        with pytest.raises(WeightsError, match="no checkpoint at"):
            weights.load_state(tmp_path / "none.pth")
        (tmp_path / "a.onnx").write_bytes(b"x")
        with pytest.raises(WeightsError, match=r"expected .safetensors or one of"):
            weights.load_state(tmp_path / "a.onnx")


class TestConvert:
    def test_keeps_names_and_values(self, tmp_path):
        shared = torch.arange(4.0)
        torch.save({"a": shared, "b": shared, "c": torch.eye(3).T[:, :2]}, tmp_path / "a.pth")
        out = weights.convert(tmp_path / "a.pth", tmp_path / "out.safetensors")
        found = load_file(out)
        assert torch.equal(found["a"], shared)
        assert torch.equal(found["b"], shared)
        assert torch.equal(found["c"], torch.eye(3)[:, :2])

    def test_other_ending_is_refused(self, tmp_path):
        torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
        with pytest.raises(WeightsError, match=r"must end in \.safetensors"):
            weights.convert(tmp_path / "a.pth", tmp_path / "b.pth")

    def test_corrupt_input_leaves_nothing(self, tmp_path):
        (tmp_path / "a.pth").write_bytes(b"junk")
        with pytest.raises(WeightsError):
            weights.convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
        assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
