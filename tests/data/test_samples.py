import numpy as np
import pytest
import torch

from tintype.conditioning.layout import Box, LayoutConfig, Region, layout_ids
from tintype.data.augment import flips
from tintype.data.samples import Batches, Sample, SceneSamples, images, labels, latents, layouts, masks, texts
from tintype.data.scenes import SceneConfig, Scenes
from tintype.models.token_transformer import TokenTransformerConfig


class Numbered:
    def __len__(self):
        return 7

    def __getitem__(self, index):
        picture = np.full((2, 4, 3), index, dtype=np.uint8)
        picture[:, 0] += 100  # a left that is not the right
        return Sample(picture=picture, caption=str(index), label=index)


def test_each_round_has_every_sample_once_in_an_order_of_its_own():
    source = Batches(Numbered(), [labels], seed=3)
    rounds = [source.batch(7 * epoch, 7)["label"].tolist() for epoch in range(3)]
    assert [sorted(one) for one in rounds] == [list(range(7))] * 3
    assert len({tuple(one) for one in rounds}) == 3
    across = Batches(Numbered(), [labels], seed=3).batch(5, 4)["label"].tolist()  # from one round into the next
    assert across == rounds[0][5:] + rounds[1][:2]


def test_a_batch_is_a_function_of_its_position_alone():
    one, other = (Batches(Numbered(), [images], seed=1, augment=[flips()]) for _ in range(2))
    for first in (0, 8, 4):
        one.batch(first, 4)
    assert torch.equal(one.batch(16, 4)["image"], other.batch(16, 4)["image"])


def test_captions_go_through_the_tokenizer():
    source = Batches(
        Numbered(), [texts(lambda said: (torch.tensor([[int(one)] for one in said]), torch.zeros(1))), labels], seed=0
    )
    batch = source.batch(0, 3)
    assert batch["ids"][:, 0].tolist() == batch["label"].tolist()


@pytest.mark.parametrize(
    ("column", "missing"),
    [
        (images, "picture"),
        (texts(lambda said: (torch.zeros(1), torch.zeros(1))), "caption"),
        (labels, "class"),
        (masks, "mask"),
        (latents, "latent"),
    ],
)
def test_what_a_sample_lacks_is_named(column, missing):
    with pytest.raises(ValueError, match=f"a sample without a {missing}"):
        column([Sample()], torch.Generator())


def test_scenes_are_samples():
    scenes = Scenes(SceneConfig())
    samples = SceneSamples(scenes, 5)
    assert len(samples) == 5
    sample, scene = samples[3], scenes[3]
    assert sample.caption == scene.caption
    assert sample.label == scene.classes[0]
    assert [(box.region.left, box.region.top) for box in sample.boxes] == [
        tuple(one[:2]) for one in scene.boxes.tolist()
    ]


def test_a_latent_is_mean_and_std():
    given = [
        Sample(mean=torch.full((1, 2, 2), float(i)).half(), logvar=torch.full((1, 2, 2), 2.0 * i).half())
        for i in range(2)
    ]
    batch = latents(given, torch.Generator())
    assert batch["mean"].dtype == torch.float32
    torch.testing.assert_close(batch["std"], torch.tensor([0.0, 1.0]).exp()[:, None, None, None].expand(2, 1, 2, 2))


def test_boxes_are_read_as_tokens_and_no_more_than_the_model_takes():
    config = LayoutConfig(
        encoder=TokenTransformerConfig(vocabulary_size=1024, context_length=8, width=8, num_layers=1),
        objects=2,
        num_classes=9,
    )
    boxes = tuple(Box(label=i, region=Region(left=0.1 * i, width=0.2)) for i in range(3))
    found = layouts(config)([Sample(boxes=boxes), Sample()], torch.Generator())["layout"]
    assert found.dtype == torch.int64
    assert found.tolist() == [list(layout_ids(boxes[:2], config)), list(layout_ids((), config))]


def test_masks_are_classes_at_pixels():
    mask = np.array([[0, 255], [7, 1]], np.uint8)
    found = masks([Sample(mask=mask)], torch.Generator())["mask"]
    assert found.dtype == torch.int64
    assert found.tolist() == [mask.tolist()]


@pytest.mark.parametrize("column", [images, masks])
def test_one_batch_has_one_size(column):
    given = [Sample(picture=np.zeros((2, side, 3), np.uint8), mask=np.zeros((2, side), np.uint8)) for side in (2, 3)]
    with pytest.raises(ValueError, match="of several sizes in one batch"):
        column(given, torch.Generator())


def test_a_scenes_mask_says_which_object_is_seen_where():
    scenes = Scenes(SceneConfig(objects=(0, 0, 0, 1.0)))
    sample, scene = SceneSamples(scenes, 3, first=5)[1], scenes[6]
    assert sample.caption == scene.caption
    assert sample.mask.dtype == np.uint8
    assert set(np.unique(sample.mask)) == {0, 1, 2, 3, 4}
    for number in range(4):
        assert np.array_equal(sample.mask == number + 1, scene.masks[number])
