"""What samples have beside their picture is found without decoding one, whatever holds them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tintype.data.prepared
from tintype.data.encoding import make_latents
from tintype.data.known import Slot, known, lacking, mask_of, require_each
from tintype.data.latents import StoredLatents
from tintype.data.preparation.run import PrepareOptions, prepare
from tintype.data.prepared import Prepared
from tintype.data.samples import Samples
from tintype.data.views import Part
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Six pictures, of which the odd ones have a caption and the first three a mask of their number."""
    for folder in ("pictures", "masks"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 90, 90)).save(tmp_path / "source" / "pictures" / f"{number}.png")
        if number % 2:
            (tmp_path / "source" / "pictures" / f"{number}.txt").write_text(f"number {number}")
        if number < 3:
            Image.new("L", (8, 8), number).save(tmp_path / "source" / "masks" / f"{number}.png")
    prepare(tmp_path / "source", tmp_path / "prepared", PrepareOptions())
    return Prepared(tmp_path / "prepared")


EXPECTED: dict[Slot, list[int]] = {
    "caption": [-1, 0, -1, 0, -1, 0],
    "label": [-1] * 6,
    "boxes": [-1] * 6,
    "mask": [0, 0, 0, -1, -1, -1],
}


def test_no_picture_is_decoded(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tintype.data.prepared, "read_picture")
    part = Part(prepared, [5, 0])
    for slot, expected in EXPECTED.items():
        assert known(prepared, slot).tolist() == expected
        assert known(part, slot).tolist() == [expected[5], expected[0]]
    assert [None if mask is None else int(mask.max()) for mask in (mask_of(part, 1), mask_of(prepared, 2))] == [0, 2]
    assert mask_of(part, 0) is None


def test_latents_tell_what_their_pictures_did(prepared: Prepared, tmp_path: Path) -> None:
    stage = Autoencoder(AutoencoderConfig(width=8, mult=(1,), num_blocks=1, norm_groups=4))
    masked = Part(prepared, range(3))
    make_latents(tmp_path / "latents", masked, stage, source="these", progress=False)
    stored = StoredLatents(tmp_path / "latents")
    for slot, expected in EXPECTED.items():
        assert known(stored, slot).tolist() == expected[:3]
    assert all(np.array_equal(mask_of(stored, number), mask_of(masked, number)) for number in range(3))  # type: ignore[arg-type]


def test_what_is_missing_is_counted_and_the_first_is_named(prepared: Prepared) -> None:
    samples: Samples = Part(prepared, [1, 4, 2])
    said = "2 of 3 samples of data/x have no caption (first: pictures/4.png)"
    assert lacking(samples, known(samples, "caption"), "caption", data="data/x") == said
    with pytest.raises(ValueError, match=r"^1 of 3 samples of data/x has no mask \(first: pictures/4.png\); make one$"):
        require_each(samples, "mask", data="data/x", remedy="make one")
    require_each(Part(prepared, [1, 3]), "caption", data="data/x", remedy="make one")
    require_each(Part(prepared, [1, 2]), "caption", data="data/x", remedy="make one", count=1)
