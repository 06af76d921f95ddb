import json
import pickle
import shutil
import socket
from copy import deepcopy
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from clip_kit import BIOMED, PLAIN, architecture, plain_network, save_biomed_folder
from clip_kit import save_plain_folder as save_plain
from safetensors.torch import save_file

from promptseg.errors import WeightsError
from promptseg.text.clip import as_picture, load_clip

TEXTS = ["an MRI of the left atrium", "a CT of the liver", "kidney"]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Any attempt to reach a network fails the test, even if the code survives it."""
    asked = []

    def refuse(*args, **_):
        asked.append(args)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    yield
    assert not asked


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder of everything that the routes load, and the networks that were saved."""
    folder = tmp_path_factory.mktemp("clip")
    saved = {"plain": save_plain(folder / "plain"), "biomed": save_biomed_folder(folder / "biomed")}
    save_plain(folder / "safe", safe=True)
    architecture(folder)
    torch.save(saved["plain"].state_dict(), folder / "plain.pt")
    return folder, saved


def pictures(count=3, side=48):
    return list(np.random.default_rng(0).random((count, side, side)).astype(np.float32))


def expected(network, tokenizer, folder):
    """What open_clip itself says, by the transform that it makes for the network."""
    config = open_clip.transform.PreprocessCfg(**network.visual.preprocess_cfg)
    transform = open_clip.transform.image_transform_v2(config, is_train=False)
    pixels = torch.stack([transform(as_picture(image)) for image in pictures()])
    with torch.inference_mode():
        images = network.encode_image(pixels, normalize=True)
        texts = network.encode_text(tokenizer(TEXTS), normalize=True)
    return images.numpy(), texts.numpy()


class TestRoutes:
    @pytest.mark.parametrize("route", ["folder", "local-dir", "safetensors", "file"])
    def test_plain_models_give_what_open_clip_gives(self, models, route):
        folder, saved = models
        arguments = {
            "folder": (folder / "plain",),
            "local-dir": (f"local-dir:{folder / 'plain'}",),
            "safetensors": (folder / "safe",),
            "file": (folder / "plain", folder / "plain.pt"),
        }[route]
        clip = load_clip(*arguments, device="cpu")
        tokenizer = open_clip.SimpleTokenizer(context_length=PLAIN["text_cfg"]["context_length"])
        images, texts = expected(saved["plain"], tokenizer, folder)
        np.testing.assert_allclose(clip.encode_images(pictures()), images, atol=1e-6)
        np.testing.assert_allclose(clip.encode_texts(TEXTS), texts, atol=1e-6)

    def test_an_architecture_file_with_a_checkpoint(self, models):
        folder, _ = models
        clip = load_clip(folder / "tiny-clip.json", folder / "plain.pt", device="cpu")
        texts = load_clip(folder / "plain", device="cpu").encode_texts(TEXTS)
        np.testing.assert_allclose(clip.encode_texts(TEXTS), texts, atol=1e-6)
        assert clip.preprocess.mean == open_clip.OPENAI_DATASET_MEAN

    def test_a_registered_architecture_with_a_checkpoint_of_training(self, models, tmp_path):
        folder, saved = models
        open_clip.add_model_config(folder / "tiny-clip.json")
        wrapped = {f"module.{name}": value for name, value in saved["plain"].state_dict().items()}
        torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "epoch_3.pt")
        clip = load_clip("tiny-clip", tmp_path / "epoch_3.pt", device="cpu")
        assert clip.image_size == 32
        assert clip.encode_texts(TEXTS).shape == (3, 16)

    def test_biomedclip_without_its_text_towers_configuration(self, models):
        folder, saved = models
        assert not (folder / "biomed" / "config.json").exists()
        clip = load_clip(folder / "biomed", device="cpu")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder / 'biomed'}")
        images, texts = expected(saved["biomed"], tokenizer, folder)
        np.testing.assert_allclose(clip.encode_images(pictures()), images, atol=1e-6)
        np.testing.assert_allclose(clip.encode_texts(TEXTS), texts, atol=1e-6)

    def test_biomedclip_with_a_configuration_and_the_buffer_of_old_transformers(
        self, models, tmp_path
    ):
        folder, saved = models
        shutil.copytree(folder / "biomed", tmp_path / "old")
        shutil.copy(folder / "biomed-bert" / "config.json", tmp_path / "old" / "config.json")
        state = saved["biomed"].state_dict()
        state["text.transformer.embeddings.position_ids"] = torch.arange(32)[None]
        torch.save(state, tmp_path / "old" / "open_clip_pytorch_model.bin")
        old, new = load_clip(tmp_path / "old", device="cpu"), load_clip(folder / "biomed")
        np.testing.assert_allclose(old.encode_texts(TEXTS), new.encode_texts(TEXTS), atol=1e-6)

    def test_a_hub_name_is_fetched_and_then_a_folder(self, models, monkeypatch):
        folder, _ = models
        asked = []

        def fetch(repository, allow_patterns):
            asked.append((repository, tuple(allow_patterns)))
            return str(folder / "biomed")

        monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
        clip = load_clip("hf-hub:someone/biomed", device="cpu")
        assert clip.name == "hf-hub:someone/biomed"
        assert {repository for repository, _ in asked} == {
            "someone/biomed",
            BIOMED["text_cfg"]["hf_model_name"],
        }
        assert not any("*.bin" in patterns for _, patterns in asked)


class TestRefusals:
    def refused(self, *arguments):
        with pytest.raises(WeightsError) as caught:
            load_clip(*arguments, device="cpu")
        return str(caught.value)

    def test_an_unreachable_hub(self, monkeypatch):
        def unreachable(*_, **__):
            raise ConnectionError("cannot resolve the host")

        monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
        message = self.refused("hf-hub:someone/clip")
        assert "hf-hub:someone/clip" in message
        assert "cannot resolve the host" in message

    def test_an_unknown_name_never_asks_the_hub(self):
        message = self.refused("someone/clip")
        assert "someone/clip" in message
        assert "hf-hub:" in message
        assert "ViT-B-32" in self.refused("ViT-B-23")

    def test_an_architecture_without_a_checkpoint(self):
        assert "checkpoint" in self.refused("ViT-B-32")

    def test_a_missing_folder_and_a_missing_configuration(self, tmp_path):
        assert "gone" in self.refused(f"local-dir:{tmp_path / 'gone'}")
        assert "open_clip_config.json" in self.refused(tmp_path)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("{", "not JSON"),
            ("[1]", "lacks embed_dim"),
            ('{"model_cfg": {"embed_dim": 8}}', "lacks vision_cfg, text_cfg"),
            ('{"model_cfg": {"embed_dim": 8, "vision_cfg": 3, "text_cfg": {}}}', "vision_cfg must"),
        ],
    )
    def test_a_configuration_that_is_none(self, tmp_path, text, reason):
        (tmp_path / "open_clip_config.json").write_text(text)
        message = self.refused(tmp_path)
        assert "open_clip_config.json" in message
        assert reason in message

    def test_a_configuration_that_cannot_be_built(self, models, tmp_path):
        folder, _ = models
        config = deepcopy(PLAIN)
        config["text_cfg"]["colour"] = "red"
        (tmp_path / "odd.json").write_text(json.dumps(config))
        message = self.refused(tmp_path / "odd.json", folder / "plain.pt")
        assert "odd.json" in message
        assert "colour" in message

    def test_a_folder_without_weights(self, models, tmp_path):
        folder, _ = models
        shutil.copy(folder / "plain" / "open_clip_config.json", tmp_path)
        message = self.refused(tmp_path)
        assert str(tmp_path) in message
        assert "open_clip_model.safetensors" in message

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    @pytest.mark.parametrize("share", [0.0, 0.95])
    def test_a_truncated_checkpoint(self, models, tmp_path, suffix, share):
        folder, saved = models
        whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
        if suffix == ".pt":
            torch.save(saved["plain"].state_dict(), whole)
        else:
            save_file(saved["plain"].state_dict(), whole)
        content = whole.read_bytes()
        cut.write_bytes(content[: int(len(content) * share)])
        message = self.refused(folder / "tiny-clip.json", cut)
        assert str(cut) in message
        assert ("empty" if share == 0 else "whole" if suffix != ".pt" else "corrupt") in message

    def test_a_pickled_payload_does_not_run(self, models, tmp_path):
        folder, _ = models
        witness = tmp_path / "ran"

        class Payload:
            def __reduce__(self):
                return Path.touch, (witness,)

        shutil.copytree(folder / "plain", tmp_path / "evil")
        file = tmp_path / "evil" / "open_clip_pytorch_model.bin"
        for write in (
            lambda: torch.save({"state_dict": Payload()}, file),
            lambda: file.write_bytes(pickle.dumps(Payload())),
        ):
            write()
            message = self.refused(tmp_path / "evil")
            assert str(file) in message
            assert "refused" in message
            assert not witness.exists()

    def test_a_torchscript_archive(self, models, tmp_path):
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "ViT-B-32.pt"))
        message = self.refused("ViT-B-32", tmp_path / "ViT-B-32.pt")
        assert "ViT-B-32.pt" in message
        assert "TorchScript" in message

    def test_weights_of_another_width(self, models, tmp_path):
        folder, _ = models
        config = deepcopy(PLAIN)
        config["embed_dim"] = 8
        (tmp_path / "narrow.json").write_text(json.dumps(config))
        message = self.refused(tmp_path / "narrow.json", folder / "plain.pt")
        assert "plain.pt" in message
        assert "narrow.json" in message
        assert "(16, 16), not (16, 8)" in message

    def test_weights_of_another_size_of_picture_are_not_stretched(self, models, tmp_path):
        folder, _ = models
        config = deepcopy(PLAIN)
        config["vision_cfg"]["image_size"] = 64
        (tmp_path / "large.json").write_text(json.dumps(config))
        assert "positional_embedding" in self.refused(tmp_path / "large.json", folder / "plain.pt")

    def test_weights_of_another_kind(self, models):
        folder, _ = models
        file = folder / "plain.pt"
        message = self.refused(folder / "biomed", file)
        assert str(file) in message
        assert "is missing" in message or "text tower" in message

    def test_a_text_tower_without_its_tokenizer(self, models, tmp_path):
        folder, _ = models
        shutil.copytree(folder / "biomed", tmp_path / "mute")
        (tmp_path / "mute" / "tokenizer.json").unlink()
        message = self.refused(tmp_path / "mute")
        assert "mute" in message
        assert "tokenizer.json" in message

    def test_a_damaged_tokenizer(self, models, tmp_path):
        folder, _ = models
        shutil.copytree(folder / "biomed", tmp_path / "torn")
        (tmp_path / "torn" / "tokenizer.json").write_text('{"version"')
        assert "damaged" in self.refused(tmp_path / "torn")

    def test_a_tokenizer_with_more_words_than_the_tower(self, tmp_path):
        config = deepcopy(PLAIN)
        config["text_cfg"]["vocab_size"] = 1000
        torch.manual_seed(0)
        (tmp_path / "few.json").write_text(json.dumps(config))
        torch.save(open_clip.CLIP(**deepcopy(config)).state_dict(), tmp_path / "few.pt")
        message = self.refused(tmp_path / "few.json", tmp_path / "few.pt")
        assert "49408" in message
        assert "1000" in message

    @pytest.mark.parametrize("std", [[0, 1, 1], [1, 1], "grey"])
    def test_pixel_statistics_that_cannot_be_used(self, models, tmp_path, std):
        folder, _ = models
        shutil.copytree(folder / "plain", tmp_path / "odd")
        file = tmp_path / "odd" / "open_clip_config.json"
        content = json.loads(file.read_text())
        content["preprocess_cfg"]["std"] = std
        file.write_text(json.dumps(content))
        message = self.refused(tmp_path / "odd")
        assert "odd" in message
        assert "preprocess_cfg" in message


@pytest.fixture(scope="module")
def clip(models):
    return load_clip(models[0] / "plain", device="cpu", batch_size=2)


class TestEncoding:
    def test_batched_is_one_by_one(self, clip):
        images = [*pictures(4), *pictures(3, side=20)]
        together = clip.encode_images(images)
        alone = np.concatenate([clip.encode_images([image]) for image in images])
        np.testing.assert_allclose(together, alone, atol=1e-6)
        words = [*TEXTS, "spleen", "a much longer text " * 20]
        alone = np.concatenate([clip.encode_texts([text]) for text in words])
        np.testing.assert_allclose(clip.encode_texts(words), alone, atol=1e-6)

    def test_vectors_have_unit_length(self, clip):
        np.testing.assert_allclose(np.linalg.norm(clip.encode_images(pictures()), axis=1), 1, 1e-5)
        np.testing.assert_allclose(np.linalg.norm(clip.encode_texts(TEXTS), axis=1), 1, 1e-5)

    def test_nothing_gives_nothing(self, clip):
        assert len(clip.encode_images([])) == len(clip.encode_texts([])) == 0

    def test_pixels_are_normalised_with_the_models_own_statistics(self, clip):
        flat = np.full((32, 32), 102 / 255, np.float32)
        pixels = clip._transform(as_picture(flat))
        wanted = [(0.4 - mean) / std for mean, std in ((0.4, 0.2), (0.5, 0.25), (0.6, 0.3))]
        assert pixels.shape == (3, 32, 32)
        np.testing.assert_allclose(pixels.amax((1, 2)), wanted, atol=1e-5)

    def test_grey_becomes_colour(self):
        picture = as_picture(np.array([[0.0, 1.0], [2.0, np.nan]]))
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(
            np.asarray(picture), np.array([[0, 255], [255, 0]])[..., None].repeat(3, -1)
        )

    def test_the_digest_names_weights_and_configuration(self, clip, models, tmp_path):
        folder, _ = models
        again = load_clip(folder / "plain", device="cpu")
        other = load_clip(folder / "tiny-clip.json", folder / "plain.pt", device="cpu")
        torch.save(plain_network(9).state_dict(), tmp_path / "other.pt")
        weights = load_clip(folder / "tiny-clip.json", tmp_path / "other.pt", device="cpu")
        assert again.sha256 == clip.sha256
        assert len({clip.sha256, other.sha256, weights.sha256}) == 3
