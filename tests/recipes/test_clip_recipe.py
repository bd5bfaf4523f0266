"""What a contrastive run publishes, and which samples measure it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import small
from PIL import Image

from tintype.checkpoints.clip import load_clip
from tintype.common.files import load_tensors
from tintype.conditioning.clip import to_pixels
from tintype.conditioning.text import words_of
from tintype.data.encoding import make_latents
from tintype.data.preparation.origins import SourceOptions
from tintype.data.preparation.run import PrepareOptions, prepare
from tintype.data.prepared import Prepared
from tintype.data.scenes import Scenes, is_held_out
from tintype.data.selection import save_selection
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig
from tintype.objectives.contrastive import loss_at_chance
from tintype.recipes import run
from tintype.recipes.clip import ContrastiveRecipe
from tintype.training.collapse import CollapseWatch


def recipe(*more: str) -> ContrastiveRecipe:
    made = small("clip", *more)
    assert isinstance(made, ContrastiveRecipe)
    return made


def test_both_towers_are_published_with_what_they_score(finished, tmp_path: Path) -> None:
    out: Path = finished("clip")
    model = load_clip(out / "clip.safetensors")
    assert model.config == recipe().model()
    average = load_tensors(out / "step-00000004" / "clip.ema.safetensors")
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, average[name].half().float()), name
    told = json.loads((out / "retrieval.json").read_text())
    ways = {f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    assert told.keys() == ways | {"captions", "zero_shot_top1", "zero_shot_top5"}
    _, held_out = recipe().split()
    samples = [held_out[index] for index in range(len(held_out))]
    cosines = (
        model.encode_pictures([one.picture for one in samples])
        @ model.encode_captions([one.caption for one in samples]).T
    )
    for way, likeness in (("image_to_text", cosines), ("text_to_image", cosines.T)):
        rank = (likeness > likeness.diagonal()[:, None]).sum(dim=1)
        for k in (1, 5, 10):
            assert told[f"{way}_r{k}"] == pytest.approx(float((rank < k).float().mean()), abs=1e-6)


def test_scenes_that_measure_show_what_training_never_shows() -> None:
    held_out = recipe("held_out=40").split()[1]
    captions = [str(held_out[index].caption) for index in range(40)]
    assert len(set(captions)) == 40
    assert set(words_of(captions)) <= set(recipe().model().words)
    learned, _ = recipe().split()
    scenes = Scenes(recipe().scenes)
    assert [learned[index].caption for index in range(24)] == [scenes.plan(index).caption for index in range(24)]
    assert not any(any(is_held_out(scenes.plan(index))) for index in range(24))


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        drawn = np.random.default_rng(number).integers(0, 256, (70, 90, 3), np.uint8)
        Image.fromarray(drawn).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"thing number {number}")
    return folder


def test_a_prepared_folder_is_learned_but_for_what_measures(tmp_path: Path) -> None:
    prepare(pictures(tmp_path / "pictures", 10), tmp_path / "prepared", PrepareOptions())
    settings = (f"data={tmp_path / 'prepared'}", "smallest_crop=0.5", "held_out=3")
    learned, held_out = recipe(*settings).split()
    seen, measures = ({one[index].caption for index in range(len(one))} for one in (learned, held_out))
    assert (len(seen), len(measures), len(seen | measures)) == (7, 3, 10)
    source = recipe(*settings).prepare(tmp_path).source
    batch = source.batch(0, 7)
    assert batch["image"].shape == (7, 3, 64, 64)
    assert len({tuple(row.tolist()) for row in batch["ids"]}) == 7
    middle = recipe(*settings, "smallest_crop=1").prepare(tmp_path).source.batch(0, 7)["image"]
    expected = torch.stack([to_pixels(learned[index].picture, 64) for index in range(7)])
    nearest = torch.cdist(middle.flatten(1), expected.flatten(1))
    assert sorted(nearest.argmin(dim=1).tolist()) == list(range(7))
    assert 8 * nearest.amin(dim=1).max() < nearest.amax(dim=1).min()  # they round between cut and resize
    run(recipe(*settings), tmp_path / "run", progress=False)
    told = json.loads((tmp_path / "run" / "retrieval.json").read_text())
    assert told["image_to_text_r5"] == told["text_to_image_r5"] == 1  # of three
    model = load_clip(tmp_path / "run" / "clip.safetensors")
    assert (model.config.words, model.network.config.text.vocabulary_size) == ((), 49_408)
    with pytest.raises(ValueError, match=r"held_out 10: expected 1 to 9, .*prepared has 10"):
        recipe(*settings, "held_out=10").split()


def test_a_filtered_folder_is_learned_as_well(tmp_path: Path) -> None:
    prepare(pictures(tmp_path / "pictures", 6), tmp_path / "prepared", PrepareOptions())
    (tmp_path / "chosen").mkdir()
    save_selection(tmp_path / "chosen", Prepared(tmp_path / "prepared"), np.array([0, 2, 5]))
    settings = (f"data={tmp_path / 'chosen'}", "held_out=1")
    assert sum(map(len, recipe(*settings).split())) == 3
    assert recipe(*settings).inputs() != recipe(f"data={tmp_path / 'prepared'}").inputs()


def test_a_picture_without_a_caption_is_named_before_anything_is_learned(tmp_path: Path) -> None:
    (pictures(tmp_path / "pictures", 6) / "4.txt").unlink()
    prepare(tmp_path / "pictures", tmp_path / "prepared", PrepareOptions(source=SourceOptions(captions="given")))
    said = r"^1 of 6 samples of .*/prepared has no caption \(first: 4\.png\); .* `tintype prepare --require-caption`"
    with pytest.raises(ValueError, match=said):
        recipe(f"data={tmp_path / 'prepared'}", "held_out=1").prepare(tmp_path)


@pytest.mark.parametrize("name", ["clip", "autoencoder"])
def test_latents_are_no_pictures(name: str, tmp_path: Path) -> None:
    prepare(pictures(tmp_path / "pictures", 6), tmp_path / "prepared", PrepareOptions())
    stage = Autoencoder(AutoencoderConfig(width=4, mult=(1,), num_blocks=1, patch_size=2, norm_groups=4))
    make_latents(tmp_path / "latents", Prepared(tmp_path / "prepared"), stage, source="these", progress=False)
    with pytest.raises(ValueError, match=r"/latents holds latents, and pictures are needed; expected the folder of"):
        small(name, f"data={tmp_path / 'latents'}", "held_out=1").prepare(tmp_path)


def test_sigmoid_runs_have_a_bias() -> None:
    assert recipe('loss={"kind":"sigmoid"}').model().clip.logit_bias
    assert not recipe().model().clip.logit_bias


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_run_is_watched_for_collapse_at_the_size_of_its_steps(kind: str, tmp_path: Path) -> None:
    made = recipe(f'loss={{"kind":"{kind}"}}', "train.batch_size=3", "train.accumulate=2", "train.warmup=5")
    (watch,) = made.prepare(tmp_path).hooks
    assert isinstance(watch, CollapseWatch)
    assert watch.chance == loss_at_chance(made.loss.kind, 6)
    assert watch.after == 10
