import dataclasses
import itertools
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, dice, discs, tiny_default

from promptseg.backbones.base import Embedding, PixelPrompts
from promptseg.errors import PromptsegError
from promptseg.inference.decoder import Request, SliceDecoder
from promptseg.inference.device import choose_device, choose_precision
from promptseg.inference.encoder import EmbeddingCache, SliceEncoder
from promptseg.volume.slicing import Frame, Region

SHAPE = (32, 32, 12)
IMAGE = discs(SHAPE, 2, {n: (10 + n, 14, 5) for n in range(12)})
FRAME = Frame(2, Region((0, 32), (0, 32)), SHAPE, (1.0, 1.0, 1.0), 64)
CPU = torch.device("cpu")


def embedding(value, size=4):
    return Embedding((torch.full((1, 2, size, size), float(value)),))


def value_of(found):
    return None if found is None else float(found.features[0][0, 0, 0, 0])


def write_many(folder, offset):
    cache = EmbeddingCache(folder=Path(folder))
    for n in range(20):
        cache.put(f"{n:02d}key", embedding(n))
        found = cache.get(f"{(n + offset) % 20:02d}key")
        if found is not None and value_of(found) != (n + offset) % 20:
            raise SystemExit(1)


class TestEncodingOnce:
    def test_cached_slices_are_not_encoded_again(self):
        backbone = BrightRegion()
        encoder = bright_encoder(IMAGE, backbone)
        encoder.embed(FRAME, [3, 4, 5])
        encoder.embed(FRAME, [5, 4, 6])
        encoder.embed(FRAME, [3, 6])
        assert backbone.encoded == encoder.encoded == 4

    def test_repeats_in_one_call_are_encoded_once(self):
        backbone = BrightRegion()
        found = bright_encoder(IMAGE, backbone).embed(FRAME, [3, 3, 2, 3])
        assert backbone.batches == [2]
        assert len(found) == 4
        assert torch.equal(found[0].features[0], found[3].features[0])

    def test_rows_follow_the_indices(self):
        encoder = bright_encoder(IMAGE, batch_size=2)
        encoder.embed(FRAME, [7])
        found = encoder.embed(FRAME, [9, 7, 1, 4])
        for row, index in enumerate([9, 7, 1, 4]):
            expected = FRAME.extract(encoder.data, [index])[:, 1:2]
            torch.testing.assert_close(found[row].features[0], expected)

    def test_batches_are_bounded(self):
        backbone = BrightRegion()
        bright_encoder(IMAGE, backbone, batch_size=5).embed(FRAME, range(12))
        assert backbone.batches == [5, 5, 2]

    def test_missing_names_what_would_be_encoded(self):
        encoder = bright_encoder(IMAGE)
        encoder.embed(FRAME, [2, 3])
        assert encoder.missing(FRAME, [1, 2, 3, 4, 1]) == [1, 4]

    def test_progress_counts_the_slices_to_encode(self):
        encoder = bright_encoder(IMAGE, batch_size=2)
        encoder.embed(FRAME, [0])
        told = []
        encoder.embed(FRAME, [0, 1, 2, 3], progress=lambda *step: told.append(step))
        assert told == [("encode", 2, 3), ("encode", 3, 3)]


class TestSignature:
    """Whatever decides the embedding is part of its name."""

    def keys(self):
        first = bright_encoder(IMAGE)
        yield "as it is", first.key(FRAME, 3)
        yield "slice", first.key(FRAME, 4)
        for name, change in {
            "region": {"region": Region((0, 32), (0, 31))},
            "axis": {"axis": 1, "shape": (32, 12, 32)},
            "spacing": {"spacing": (1.0, 1.5, 1.0)},
            "size": {"size": 32},
        }.items():
            yield name, first.key(dataclasses.replace(FRAME, **change), 3)
        options = (BrightRegion(), first.data, "image", CPU, "fp32")
        yield "volume or window", SliceEncoder(*options[:2], "another", *options[3:]).key(FRAME, 3)
        yield "precision", SliceEncoder(*options[:4], "bf16").key(FRAME, 3)
        yield "adapter", SliceEncoder(*options, adapter="heart 12ab").key(FRAME, 3)
        yield "model", SliceEncoder(BrightRegion(name="b"), *options[1:]).key(FRAME, 3)
        digest = BrightRegion()
        digest.spec = dataclasses.replace(digest.spec, sha256="cd34")
        yield "weights", SliceEncoder(digest, *options[1:]).key(FRAME, 3)
        colours = BrightRegion()
        colours.spec = dataclasses.replace(colours.spec, pixels="imagenet")
        yield "normalisation", SliceEncoder(colours, *options[1:]).key(FRAME, 3)
        family = BrightRegion(family="sam")
        yield "family", SliceEncoder(family, *options[1:]).key(FRAME, 3)

    def test_differs_with_every_part(self):
        keys = dict(self.keys())
        same = [(a, b) for a, b in itertools.combinations(keys, 2) if keys[a] == keys[b]]
        assert same == []

    def test_is_the_same_for_the_same_and_names_a_file(self):
        key = bright_encoder(IMAGE).key(FRAME, 3)
        assert key == bright_encoder(IMAGE).key(FRAME, 3)
        assert len(key) == 64
        assert key.isalnum()

    @pytest.mark.parametrize("change", ["precision", "adapter", "model"])
    def test_another_is_a_miss_in_a_shared_cache(self, change):
        cache = EmbeddingCache()
        bright_encoder(IMAGE, cache=cache).embed(FRAME, [3])
        backbone = BrightRegion(name="b" if change == "model" else "bright")
        precision = "bf16" if change == "precision" else "fp32"
        adapter = "heart" if change == "adapter" else ""
        options = (IMAGE.astype(np.float32), "image", CPU, precision)
        SliceEncoder(backbone, *options, cache=cache, adapter=adapter).embed(FRAME, [3])
        assert backbone.encoded == 1

    def test_weights_without_digest_are_told_apart_by_their_values(self):
        data = np.zeros(SHAPE, np.float32)
        keys = {
            SliceEncoder(tiny_default(seed), data, "zero", CPU, "fp32").key(FRAME, 3)
            for seed in (0, 1, 0)
        }
        one, other = tiny_default(0), tiny_default(1)
        one.spec = other.spec = dataclasses.replace(one.spec, name="memory")
        assert len(keys) == 2
        assert SliceEncoder(one, data, "zero", CPU, "fp32").key(FRAME, 3) != SliceEncoder(
            other, data, "zero", CPU, "fp32"
        ).key(FRAME, 3)

    def test_training_in_place_changes_the_signature(self):
        backbone, data = tiny_default(), np.zeros(SHAPE, np.float32)
        before = SliceEncoder(backbone, data, "zero", CPU, "fp32").key(FRAME, 3)
        with torch.no_grad():
            next(backbone.module.parameters()).add_(0.01)
        assert SliceEncoder(backbone, data, "zero", CPU, "fp32").key(FRAME, 3) != before


class TestMemory:
    def test_is_bounded_and_forgets_the_least_recently_used(self):
        one = embedding(0).nbytes
        cache = EmbeddingCache(max_bytes=3 * one)
        for n in range(3):
            cache.put(str(n), embedding(n))
        cache.get("0")
        cache.put("3", embedding(3))
        assert [value_of(cache.get(str(n))) for n in range(4)] == [0, None, 2, 3]
        assert cache.nbytes == 3 * one

    def test_one_that_is_larger_than_the_bound_is_still_held(self):
        cache = EmbeddingCache(max_bytes=8)
        cache.put("a", embedding(1))
        cache.put("b", embedding(2))
        assert cache.get("a") is None
        assert value_of(cache.get("b")) == 2

    def test_putting_again_does_not_count_twice(self):
        cache = EmbeddingCache()
        cache.put("a", embedding(1))
        cache.put("a", embedding(2))
        assert cache.nbytes == embedding(0).nbytes
        assert value_of(cache.get("a")) == 2

    def test_clear_forgets(self):
        cache = EmbeddingCache()
        cache.put("a", embedding(1))
        cache.clear()
        assert (cache.get("a"), cache.nbytes, "a" in cache) == (None, 0, False)

    def test_slices_are_encoded_again_once_forgotten(self):
        backbone = BrightRegion()
        encoder = bright_encoder(IMAGE, backbone, cache=EmbeddingCache(max_bytes=1))
        encoder.embed(FRAME, [3, 4])
        encoder.embed(FRAME, [3, 4])
        assert backbone.encoded == 3


class TestFiles:
    KEY = "ab" + "0" * 62

    def file(self, folder):
        files = list(folder.rglob("*.safetensors"))
        assert len(files) == 1
        return files[0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_another_process_finds_them(self, tmp_path, dtype):
        held = Embedding(tuple(torch.randn(1, c, 4, 4).to(dtype) for c in (2, 3)))
        EmbeddingCache(folder=tmp_path).put(self.KEY, held)
        cache = EmbeddingCache(folder=tmp_path)
        assert self.KEY in cache
        found = cache.get(self.KEY)
        assert [f.dtype for f in found.features] == [dtype, dtype]
        for one, other in zip(found.features, held.features, strict=True):
            assert torch.equal(one, other)

    def test_two_sessions_encode_once(self, tmp_path):
        one, other = BrightRegion(), BrightRegion()
        first = bright_encoder(IMAGE, one, cache=EmbeddingCache(folder=tmp_path))
        second = bright_encoder(IMAGE, other, cache=EmbeddingCache(folder=tmp_path))
        before, after = first.embed(FRAME, [3, 4]), second.embed(FRAME, [3, 4])
        assert (one.encoded, other.encoded) == (2, 0)
        assert torch.equal(before.features[0], after.features[0])

    @pytest.mark.parametrize("damage", ["empty", "cut", "text", "flipped", "swapped"])
    def test_damaged_file_is_a_miss_and_is_replaced(self, tmp_path, damage):
        EmbeddingCache(folder=tmp_path).put(self.KEY, embedding(1))
        file = self.file(tmp_path)
        whole = file.read_bytes()
        if damage == "swapped":
            other = EmbeddingCache(folder=tmp_path / "other")
            other.put("cd" + "0" * 62, embedding(2))
            file.write_bytes(self.file(tmp_path / "other").read_bytes())
        else:
            flipped = whole[:-5] + bytes([whole[-5] ^ 0x40]) + whole[-4:]
            cut, text = whole[: len(whole) // 2], b"not an embedding"
            file.write_bytes({"empty": b"", "cut": cut, "text": text, "flipped": flipped}[damage])
        cache = EmbeddingCache(folder=tmp_path)
        assert cache.get(self.KEY) is None
        cache.put(self.KEY, embedding(1))
        assert value_of(EmbeddingCache(folder=tmp_path).get(self.KEY)) == 1

    def test_files_are_bounded_and_the_oldest_go_first(self, tmp_path):
        cache = EmbeddingCache(max_bytes=9000, folder=tmp_path)
        for n in range(6):
            cache.put(f"{n}{n}key", embedding(n, size=16))
        sizes = [file.stat().st_size for file in tmp_path.rglob("*.safetensors")]
        assert sum(sizes) <= 9000
        fresh = EmbeddingCache(folder=tmp_path)
        assert value_of(fresh.get("55key")) == 5
        assert fresh.get("00key") is None

    def test_a_failed_write_does_not_stop_the_work(self, tmp_path):
        blocked = tmp_path / "file"
        blocked.write_text("in the way")
        backbone = BrightRegion()
        encoder = bright_encoder(IMAGE, backbone, cache=EmbeddingCache(folder=blocked / "cache"))
        assert len(encoder.embed(FRAME, [3, 4])) == 2
        encoder.embed(FRAME, [3, 4])
        assert backbone.encoded == 2

    def test_a_file_that_vanishes_while_read_is_not_left_behind_empty(self, tmp_path, monkeypatch):
        EmbeddingCache(folder=tmp_path).put(self.KEY, embedding(1))
        file = self.file(tmp_path)
        cache, read = EmbeddingCache(folder=tmp_path), EmbeddingCache._read

        def gone(self, key):
            found = read(self, key)
            file.unlink(missing_ok=True)
            return found

        monkeypatch.setattr("os.utime", lambda *_: file.unlink(missing_ok=True))
        monkeypatch.setattr(EmbeddingCache, "_read", gone)
        cache.get(self.KEY)
        assert not file.exists()

    def test_two_processes_share_a_folder(self, tmp_path):
        forks = "fork" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("fork" if forks else "spawn")
        workers = [
            context.Process(target=write_many, args=(str(tmp_path), offset)) for offset in (3, 7)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0, 0]
        cache = EmbeddingCache(folder=tmp_path)
        assert [value_of(cache.get(f"{n:02d}key")) for n in range(20)] == list(range(20))


class TestOutOfMemory:
    def test_halves_the_batch_and_gives_the_same(self):
        backbone = BrightRegion(fits=3)
        encoder = bright_encoder(IMAGE, backbone, batch_size=8)
        found = encoder.embed(FRAME, range(12))
        assert max(backbone.batches) == 2
        assert encoder.batch_size == 2
        assert backbone.encoded == encoder.encoded == 12
        expected = bright_encoder(IMAGE).embed(FRAME, range(12))
        assert torch.equal(found.features[0], expected.features[0])

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory"),
            MemoryError(),
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't "
                         "allocate memory: you tried to allocate 99999999999 bytes."),
        ],
    )  # fmt: skip
    def test_every_kind_is_known(self, monkeypatch, error):
        backbone = BrightRegion()
        encode = backbone.encode

        def fails(images):
            if len(images) > 2:
                raise error
            return encode(images)

        monkeypatch.setattr(backbone, "encode", fails)
        bright_encoder(IMAGE, backbone, batch_size=8).embed(FRAME, range(4))
        assert backbone.batches == [2, 2]

    def test_what_the_allocator_of_this_torch_raises_is_known(self, monkeypatch):
        backbone = BrightRegion()
        encode = backbone.encode

        def fails(images):
            if len(images) > 1:
                torch.empty(1 << 60, dtype=torch.uint8)
            return encode(images)

        monkeypatch.setattr(backbone, "encode", fails)
        bright_encoder(IMAGE, backbone, batch_size=4).embed(FRAME, range(4))
        assert backbone.batches == [1] * 4

    def test_one_slice_that_does_not_fit_is_an_error(self):
        encoder = bright_encoder(IMAGE, BrightRegion(fits=0))
        with pytest.raises(PromptsegError, match="one slice does not fit into memory"):
            encoder.embed(FRAME, [1, 2, 3])

    def test_other_errors_are_not_hidden(self, monkeypatch):
        backbone = BrightRegion()

        def fails(images):
            raise RuntimeError("shapes do not match")

        monkeypatch.setattr(backbone, "encode", fails)
        with pytest.raises(RuntimeError, match="shapes do not match"):
            bright_encoder(IMAGE, backbone).embed(FRAME, [1])


class TestPrecision:
    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_masks_are_the_same_as_in_float32(self, precision):
        rng = np.random.default_rng(0)
        data = np.clip(IMAGE * 0.6 + rng.normal(0.2, 0.05, SHAPE), 0, 1).astype(np.float32)
        box = PixelPrompts(box=torch.tensor([10.0, 20.0, 40.0, 50.0]))
        masks = {}
        for kind in ("fp32", precision):
            encoder = SliceEncoder(tiny_default(), data, "noise", CPU, kind)
            answers = SliceDecoder(encoder).decode(FRAME, [Request(n, box) for n in range(8)])
            logits = torch.stack([a.logits for a in answers])
            masks[kind] = (logits > logits.median()).numpy()
        assert dice(masks["fp32"], masks[precision]) > 0.98

    def test_embeddings_are_kept_in_it(self):
        data = np.zeros(SHAPE, np.float32)
        encoder = SliceEncoder(tiny_default(), data, "zero", CPU, "bf16")
        assert {f.dtype for f in encoder.embed(FRAME, [1]).features} == {torch.bfloat16}

    def test_auto_is_bfloat16_only_where_the_processor_has_it(self, monkeypatch):
        for has, chosen in ((True, "bf16"), (False, "fp32")):
            monkeypatch.setattr("promptseg.inference.device.cpu_computes_bfloat16", lambda h=has: h)
            assert choose_precision("auto", CPU) == chosen

    @pytest.mark.parametrize("given", ["fp32", "bf16", "fp16"])
    def test_a_given_one_is_taken(self, given):
        assert choose_precision(given, CPU) == given

    def test_unknown_is_refused(self):
        with pytest.raises(PromptsegError, match="'int8' is unknown: use auto"):
            choose_precision("int8", CPU)


class TestDevice:
    def test_auto_without_a_gpu_is_the_cpu(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        assert choose_device("auto") == choose_device("cpu") == CPU

    @pytest.mark.parametrize("given", ["tpu", "cuda:x", "", "meta", "cpu:a", None, 3])
    def test_unknown_is_refused(self, given):
        with pytest.raises(PromptsegError, match="is unknown: use auto, cpu or cuda"):
            choose_device(given)

    def test_a_gpu_that_is_not_there_is_refused(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(PromptsegError, match="no GPU"):
            choose_device("cuda")
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        assert choose_device("cuda:1").index == 1
        with pytest.raises(PromptsegError, match="torch finds 2"):
            choose_device("cuda:2")
