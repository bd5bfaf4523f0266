"""Measurements run over pictures once, in constant memory, and go on where they were killed, to the same bits."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tintype.common.config import Json, to_json
from tintype.common.files import load_metadata
from tintype.data.samples import Sample
from tintype.evaluation.caption_figures import CaptionSums, RetrievalSums
from tintype.evaluation.extractors import Features
from tintype.evaluation.feature_figures import FeatureConfig, FeatureSums, Measured, measure_features
from tintype.evaluation.frechet import frechet_distance
from tintype.evaluation.kernel import kernel_distance
from tintype.evaluation.manifold import precision_recall
from tintype.evaluation.pair_figures import PairSums
from tintype.evaluation.pictures import squared
from tintype.evaluation.streaming import Walk

SIDE = 8


class Colours:
    """Features: the mean of each colour in each quarter; logits: three of them."""

    name, dim, classes = "colours", 12, 3

    def __call__(self, image: Tensor, /) -> Features:
        pooled = torch.nn.functional.avg_pool2d(image.float() / 255, SIDE // 2).flatten(1)
        return Features(pooled, 5 * pooled[:, :3])


class Killed(Exception):
    pass


@dataclass
class Drawn:
    """Random pictures; the process dies when the one at `dies` is asked for. `asked`: for which it was."""

    count: int
    seed: int = 0
    dies: int | None = None
    side: int = SIDE
    asked: list[int] = field(default_factory=list)

    @property
    def told(self) -> dict[str, Json]:
        return {"source": "drawn", "pictures": self.count, "seed": self.seed}

    @property
    def size(self) -> tuple[int, int]:
        return self.side, self.side

    def __len__(self) -> int:
        return self.count

    def batch(self, first: int, count: int) -> Sequence[Sample]:
        self.asked.append(first)
        if self.dies is not None and first + count > self.dies:
            raise Killed
        return [self._one(number) for number in range(first, min(first + count, self.count))]

    def _one(self, number: int) -> Sample:
        levels = np.random.default_rng((self.seed, number)).integers(0, 256, (self.side, self.side, 3))
        return Sample(picture=levels.astype(np.uint8))


CONFIG = FeatureConfig(reservoir=40, subsets=5, subset_size=30, splits=4)


def measured(keep: Path | None, *, dies: int | None = None, dies_in_reference: int | None = None) -> Measured:
    walk = Walk(batch=7, keep=keep, every=0, key={"extractor": "colours"})
    return measure_features(Drawn(90, 1, dies), Drawn(110, 2, dies_in_reference), Colours(), CONFIG, walk)


def test_a_killed_measurement_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = measured(None)
    for dies in (3, 64):
        keep = tmp_path / str(dies)
        keep.mkdir()
        with pytest.raises(Killed):
            measured(keep, dies_in_reference=50)
        with pytest.raises(Killed):
            measured(keep, dies=dies)
        again = measured(keep)
        assert json.dumps(again.figures) == json.dumps(whole.figures)
        assert again.reference is not None
        assert whole.reference is not None
        assert torch.equal(again.reference.covariance, whole.reference.covariance)


def test_what_was_done_is_not_done_again(tmp_path: Path) -> None:
    walk, pictures = Walk(batch=7, keep=tmp_path, every=0), Drawn(40, dies=24)
    with pytest.raises(Killed):
        walk.through("pictures", pictures, FeatureSums(Colours(), CONFIG, classes=True))
    told = load_metadata(tmp_path / "pictures.state.safetensors")
    assert isinstance(told, dict)
    assert told["position"] == 21
    later = Drawn(40)
    walk.through("pictures", later, FeatureSums(Colours(), CONFIG, classes=True))
    assert later.asked == [21, 28, 35]
    walk.through("pictures", later, FeatureSums(Colours(), CONFIG, classes=True))
    assert later.asked == [21, 28, 35]


@pytest.mark.parametrize("changed", ["key", "batch", "pictures"])
def test_another_measurement_does_not_go_on_from_it(tmp_path: Path, changed: str) -> None:
    with pytest.raises(Killed):
        measured(tmp_path, dies=50)
    key: Json = {"extractor": "others" if changed == "key" else "colours"}
    walk = Walk(batch=8 if changed == "batch" else 7, keep=tmp_path, every=0, key=key)
    pictures = Drawn(90, 3 if changed == "pictures" else 1)
    with pytest.raises(ValueError, match="name another folder with --out"):
        walk.through("pictures", pictures, FeatureSums(Colours(), CONFIG, classes=True))


def test_a_file_that_is_no_state_is_refused(tmp_path: Path) -> None:
    weights = Path(__file__).parents[2] / "tintype" / "weights" / "judge.safetensors"
    (tmp_path / "pictures.state.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(ValueError, match="is not the state of a measurement"):
        Walk(keep=tmp_path).through("pictures", Drawn(9), FeatureSums(Colours(), CONFIG, classes=True))


def room(tensors: dict[str, Tensor]) -> int:
    return sum(one.untyped_storage().nbytes() for one in tensors.values())


def test_fourteen_times_the_pictures_take_no_more_room() -> None:
    def kept(count: int) -> tuple[int, int]:
        features = FeatureSums(Colours(), CONFIG, classes=True)
        pairs = PairSums(lambda first, image: 255 - image, extractor=Colours())
        for sums in (features, pairs):
            Walk(batch=50).through("pictures", Drawn(count), sums)
        return room(features.tensors()), room(pairs.tensors())

    assert kept(50) == kept(700)


def test_all_figures_are_those_of_all_features_at_once() -> None:
    """With room for all: against the sums over one batch of everything."""
    told = measured(None).figures
    sides = [torch.cat([Colours()(one).pooled for one in all_pixels(Drawn(*which))]) for which in ((90, 1), (110, 2))]
    covariances = [np.cov(side.double().numpy(), rowvar=False) for side in sides]
    root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).astype(complex)).real.sum()
    away = (sides[0].double().mean(0) - sides[1].double().mean(0)).square().sum()
    expected = float(away) + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
    assert told["frechet_distance"] == pytest.approx(expected, rel=1e-9)
    assert told["features_kept"] == {"pictures": 40, "reference": 40}
    names = {"frechet_distance", "kernel_distance", "precision", "recall", "neighbours", "features_kept", "class_score"}
    assert told.keys() == names  # none of them called as if Inception had seen the pictures


def test_kernel_distance_and_manifolds_are_of_the_features_that_are_kept() -> None:
    config = FeatureConfig(figures=("kid", "precision_recall"), reservoir=200, subsets=5, subset_size=30, neighbours=1)
    told = measure_features(Drawn(40, 1), Drawn(110, 2), Colours(), config, Walk(batch=7)).figures
    x, y = (torch.cat([Colours()(one).pooled for one in all_pixels(Drawn(*which))]) for which in ((40, 1), (110, 2)))
    assert told["kernel_distance"] == to_json(kernel_distance(x, y, subsets=5, subset_size=30))
    assert (told["precision"], told["recall"]) == precision_recall(x, y, neighbours=1)
    assert told["precision"] != told["recall"]
    assert precision_recall(x, y, neighbours=3) != precision_recall(x, y, neighbours=1)


def all_pixels(pictures: Drawn) -> list[Tensor]:
    samples = pictures.batch(0, len(pictures))
    return [torch.from_numpy(one.picture).permute(2, 0, 1)[None] for one in samples if one.picture is not None]


def test_statistics_stand_for_their_pictures() -> None:
    first = measured(None)
    assert first.reference is not None
    config = FeatureConfig(figures=("fid",))
    told = measure_features(Drawn(90, 1), first.reference, Colours(), config, Walk(batch=7))
    assert told.figures == {"frechet_distance": first.figures["frechet_distance"]}
    assert told.reference is None
    with pytest.raises(ValueError, match="kid of statistics, which keep no features; expected fid"):
        measure_features(Drawn(90, 1), first.reference, Colours(), FeatureConfig(figures=("fid", "kid")), Walk(batch=7))


def test_what_cannot_be_trusted_is_said() -> None:
    few = measure_features(Drawn(12, 1), Drawn(110, 2), Colours(), CONFIG, Walk())
    assert [line.split(":")[0] for line in few.warnings] == ["frechet_distance", "kernel_distance"]
    assert "the pictures: 12 pictures for 12 features" in few.warnings[0]
    assert "subsets of 12, not 30" in few.warnings[1]
    assert measured(None).warnings == ()


def test_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="pictures of 16 x 16, a reference of 8 x 8; expected one size: give --size"):
        measure_features(Drawn(90, side=16), Drawn(90), Colours(), CONFIG, Walk())

    class Broken(Colours):
        def __call__(self, image: Tensor, /) -> Features:
            seen = super().__call__(image)
            seen.pooled[2, 0] = math.nan
            return seen

    with pytest.raises(ValueError, match="pictures 0 to 31, colours: features of 1 of 32 pictures are not numbers"):
        measure_features(Drawn(90), Drawn(90), Broken(), CONFIG, Walk())


# Pairs


def noisy(first: int, image: Tensor) -> Tensor:
    """Every third as it is, the others the worse the later they come."""
    numbers = torch.arange(first, first + len(image))
    change = torch.where(numbers % 3 == 0, 0, numbers)[:, None, None, None]
    return torch.where(image > 127, image - change, image + change).byte()


def test_sums_of_pairs_are_means_and_name_the_worst(tmp_path: Path) -> None:
    sums = PairSums(noisy, lpips=lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)), extractor=Colours())
    Walk(batch=7).through("pictures", Drawn(20), sums)
    told, warnings = sums.figures()
    changed = [number for number in range(20) if number % 3]
    assert told["psnr"] == pytest.approx(np.mean([20 * math.log10(255 / number) for number in changed]), rel=1e-9)
    error = sum(number**2 for number in changed) / 20
    assert told["psnr_of_mean_error"] == pytest.approx(10 * math.log10(255**2 / error), rel=1e-9)
    assert told["identical"] == 7
    assert told["lpips"] == pytest.approx(sum(changed) / 20 / 127.5, rel=1e-5)
    assert sums.worst_places == [19, 17, 16, 14, 13, 11, 10, 8]
    assert warnings == ()
    statistics = [side.gaussian() for side in sums.sides]
    assert told["reconstruction_frechet_distance"] == frechet_distance(*statistics)

    with pytest.raises(Killed):
        Walk(batch=7, keep=tmp_path, every=0).through("pictures", Drawn(20, dies=15), PairSums(noisy))
    again = PairSums(noisy)
    Walk(batch=7, keep=tmp_path, every=0).through("pictures", Drawn(20), again)
    assert again.figures()[0] == {name: told[name] for name in ("psnr", "psnr_of_mean_error", "identical", "ssim")}
    assert again.worst_places == sums.worst_places


def test_equal_pictures_have_no_ratio() -> None:
    sums = PairSums(lambda first, image: image)
    Walk().through("pictures", Drawn(5), sums)
    told, _ = sums.figures()
    assert told == {"psnr": None, "psnr_of_mean_error": None, "identical": 5, "ssim": pytest.approx(1)}
    json.dumps(told, allow_nan=False)


# Captions


def test_clip_scores_are_means_and_name_the_nearest_and_furthest() -> None:
    cosines = [0.3, -0.2, *(number / 100 for number in range(20))]
    sums = CaptionSums(lambda pictures, captions: torch.tensor([cosines[int(one)] for one in captions]))
    samples = [Sample(picture=np.zeros((4, 4, 3), np.uint8), caption=str(number)) for number in range(22)]
    for first in range(0, 22, 5):
        sums.update(first, samples[first : first + 5])
    told = sums.figures()
    assert told["clip_score"] == pytest.approx(2.5 * np.mean([max(one, 0) for one in cosines]))
    assert told["clip_score_percent"] == pytest.approx(100 * np.mean(cosines))
    assert sums.best_places == [0, 21, 20, 19, 18, 17, 16, 15]
    assert sums.worst_places == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_picture_is_found_by_any_of_its_captions() -> None:
    class Towers:
        config = SimpleNamespace(clip=SimpleNamespace(image=SimpleNamespace(projection_dim=4)))

        def encode_pictures(self, pictures: Sequence[np.ndarray]) -> Tensor:
            return torch.eye(4)[[int(one[0, 0, 0]) for one in pictures]]

        def encode_captions(self, captions: Sequence[str]) -> Tensor:
            return torch.eye(4)[[int(one) for one in captions]]

    sums = RetrievalSums(Towers())  # type: ignore[arg-type]
    for number, (caption, others) in enumerate([("3", ("0",)), ("1", ()), ("2", ())]):  # the first of 0 is of none
        picture = np.full((4, 4, 3), number, np.uint8)
        sums.update(number, [Sample(picture=picture, caption=caption, other_captions=others)])
    told = sums.figures()
    assert told["captions"] == 4
    assert told["image_to_text_r1"] == 1
    assert sums.image_of.tolist() == [0, 0, 1, 2]


def test_a_square_is_the_middle_of_its_picture() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    assert np.asarray(squared(Image.fromarray(wide), 10)).min() == 255
    high = np.asarray(squared(Image.fromarray(wide.transpose(1, 0, 2)), 5))
    assert high.shape == (5, 5, 3)
    assert high[1:-1].min() > 240
