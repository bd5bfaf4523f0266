from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tintype.data.latents import Latents, appearance, channel_statistics, load_latents, make_latents
from tintype.data.scenes import SceneConfig, Scenes
from tintype.data.sources import to_tensor
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig

TINY = AutoencoderConfig(latent_channels=4, width=8, mult=(1, 2), num_blocks=1, patch_size=4, norm_groups=4)
KEY = {"autoencoder": "abc", "scenes": {"size": 64, "objects": [0.5, 0.5]}, "count": 7}


def numbered(count: int) -> dict[str, torch.Tensor]:
    return {"mean": torch.arange(count).float().reshape(count, 1, 1, 1), "end": torch.arange(count) * 10}


def seen(source: Latents, first: int, count: int) -> list[int]:
    return source.batch(first, count)["mean"].flatten().int().tolist()


def test_each_time_round_shows_everything_once_in_another_order() -> None:
    source = Latents(numbered(50), seed=3)
    rounds = [seen(source, 50 * number, 50) for number in range(4)]
    for order in rounds:
        assert sorted(order) == list(range(50))
        assert order != list(range(50))
    assert len({tuple(order) for order in rounds}) == 4
    assert rounds[0] != seen(Latents(numbered(50), seed=4), 0, 50)


def test_a_batch_is_a_pure_function_of_position() -> None:
    source = Latents(numbered(50), seed=3)
    whole = seen(source, 0, 220)
    for first, count in ((100, 20), (45, 10), (0, 3), (199, 21), (49, 1), (48, 104)):  # back and forth, across rounds
        assert seen(source, first, count) == whole[first : first + count]
        assert seen(Latents(numbered(50), seed=3), first, count) == whole[first : first + count]


def test_all_tensors_of_a_batch_belong_together() -> None:
    batch = Latents(numbered(50), seed=3).batch(30, 40)
    assert batch.keys() == {"mean", "end"}
    assert torch.equal(batch["mean"].flatten().int() * 10, batch["end"].int())


def test_latents_are_the_posterior_of_scenes_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tintype.data.latents.CHUNK", 3)
    torch.manual_seed(0)
    scenes, autoencoder = Scenes(SceneConfig()), Autoencoder(TINY).eval()
    path = tmp_path / "latents.safetensors"
    make_latents(path, scenes, autoencoder, 7, key=KEY)
    tensors = load_latents(path, key=KEY)
    assert tensors is not None
    assert tensors.keys() == {"mean", "std"}
    with torch.inference_mode():
        posterior = autoencoder.encode(to_tensor([scenes[index].picture for index in range(7)]))
    for name, expected in (("mean", posterior.mean), ("std", (0.5 * posterior.logvar).exp())):
        assert tensors[name].dtype == torch.float16
        assert tensors[name].shape == (7, 4, 8, 8)
        assert torch.allclose(tensors[name].float(), expected, rtol=2e-3, atol=1e-4)


def test_latents_of_another_key_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "latents.safetensors"
    assert load_latents(path, key=KEY) is None
    make_latents(path, Scenes(SceneConfig()), Autoencoder(TINY).eval(), 2, key=KEY)
    assert load_latents(path, key=dict(KEY)) is not None
    assert load_latents(path, key={**KEY, "count": 8}) is None
    assert load_latents(path, key={**KEY, "scenes": {"size": 64, "objects": [0.4, 0.6]}}) is None
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"latents\.safetensors is not a whole"):
        load_latents(path, key=KEY)


def test_the_appearance_of_scenes_is_their_pictures_and_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = Scenes(SceneConfig())
    known = appearance(scenes)
    assert appearance(Scenes(SceneConfig())) == known
    assert appearance(Scenes(SceneConfig(seed=1))) != known
    original = scenes[15]
    monkeypatch.setattr(Scenes, "render", lambda _, plan: replace(original, plan=plan))
    pictures_changed = appearance(scenes)
    monkeypatch.undo()
    monkeypatch.setattr(Scenes, "_sentence", lambda *_: "a thing")
    captions_changed = appearance(scenes)
    assert len({known, pictures_changed, captions_changed}) == 3


def test_channel_statistics_count_the_posteriors_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    means, spreads = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.5, 3.0, 1.0])
    mean = torch.randn(4000, 3, 4, 4, generator=generator) * spreads[:, None, None] + means[:, None, None]
    std = torch.tensor([0.1, 1.0, 2.0])[:, None, None].expand(4000, 3, 4, 4)
    shift, scale = channel_statistics(mean.half(), std.half())
    samples = mean + std * torch.randn(mean.shape, generator=generator)
    assert torch.allclose(torch.tensor(shift), samples.mean(dim=(0, 2, 3)), atol=0.03)
    assert torch.allclose(torch.tensor(scale), samples.std(dim=(0, 2, 3)), rtol=0.01)
    assert torch.allclose(torch.tensor(scale), (spreads**2 + std[0, :, 0, 0] ** 2).sqrt(), rtol=0.01)
