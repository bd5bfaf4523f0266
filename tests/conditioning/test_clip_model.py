"""Pictures and captions through a CLIP: preprocessing as transformers has it, scores as torchmetrics has them."""

import dataclasses

import numpy as np
import pytest
import torch
from network_oracles import randomize
from PIL import Image
from test_clip_pair import SMALL

from tintype.conditioning.clip import CLIPModel, clip_score, to_pixels
from tintype.models.clip_pair import CLIP


def picture(width: int, height: int) -> Image.Image:
    drawn = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(drawn)


@pytest.mark.parametrize("size", [(90, 60), (61, 95), (48, 48), (20, 36), (64, 64)], ids=str)
def test_pixels_are_transformers(size: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    theirs = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    image = picture(*size)
    ours = (to_pixels(image, 48) + 1) / 2
    mean, std = (torch.tensor(colour)[:, None, None] for colour in (SMALL.image.mean, SMALL.image.std))
    expected = torch.as_tensor(theirs(image, return_tensors="np")["pixel_values"][0])
    torch.testing.assert_close((ours - mean) / std, expected, rtol=1e-5, atol=1e-5)


def model() -> CLIPModel:
    text = dataclasses.replace(SMALL.text, vocabulary_size=5)
    return CLIPModel(randomize(CLIP(dataclasses.replace(SMALL, text=text))), ("apple", "red", "sun"), batch_size=2)


def test_likeness_is_pair_by_pair() -> None:
    clip = model()
    pictures, captions = [picture(40 + at, 32) for at in range(3)], ["red apple", "sun", "apple"]
    images, texts = clip.encode_pictures(pictures), clip.encode_captions(captions)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    one_by_one = torch.cat([clip.encode_pictures([one]) for one in pictures])
    torch.testing.assert_close(images, one_by_one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clip.encode_pictures([np.asarray(one) for one in pictures]), images)
    expected = (images @ texts.T).diagonal()
    torch.testing.assert_close(clip.likeness(pictures, captions), expected)
    torch.testing.assert_close(clip.score(pictures, captions), 2.5 * expected.clamp(min=0))


def test_scores() -> None:
    cosines = torch.tensor([0.3, -0.2])
    assert clip_score(cosines).tolist() == pytest.approx([0.75, 0.0])
    assert clip_score(cosines, scale="percent").tolist() == pytest.approx([30.0, -20.0])


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="2 pictures, 1 captions; expected as many"):
        model().likeness([picture(32, 32)] * 2, ["sun"])
    with pytest.raises(ValueError, match="nothing to read"):
        model().encode_captions([])
