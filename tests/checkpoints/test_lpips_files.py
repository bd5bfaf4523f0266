"""LPIPS from the files that people have, against the package lpips on the same weights."""

from collections.abc import Callable
from pathlib import Path

import lpips_oracle
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tintype.checkpoints.lpips_files import load_lpips
from tintype.common.rng import generator
from tintype.models.lpips import LPIPS, lpips_names

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return lpips_oracle.their_lpips()


@pytest.fixture(scope="module")
def vgg(theirs: nn.Module) -> dict[str, Tensor]:
    """VGG16 as torchvision names it, and a classifier that is not needed."""
    slices = {name: value for name, value in theirs.state_dict().items() if name.startswith("net.")}
    renamed = {f"features.{name.split('.', 2)[2]}": value for name, value in slices.items()}
    return renamed | {"classifier.0.weight": torch.zeros(2, 2)}


@pytest.fixture(scope="module")
def linear() -> Path:
    import lpips

    return Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth"


@pytest.fixture(scope="module")
def ours(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> LPIPS:
    """From the whole state of their module."""
    path = tmp_path_factory.mktemp("lpips") / "whole.pth"
    torch.save(theirs.state_dict(), path)
    return load_lpips([path])


def pictures(key: int, height: int = 32, width: int = 48) -> Tensor:
    return torch.rand(2, 3, height, width, generator=generator(key)) * 2 - 1


def test_the_distance_and_its_gradient_are_theirs(ours: LPIPS, theirs: nn.Module) -> None:
    a, b = pictures(1).requires_grad_(), pictures(2)
    expected = theirs(a, b)
    [gradient] = torch.autograd.grad(expected.sum(), a)
    mine = ours(a, b)
    [own] = torch.autograd.grad(mine.sum(), a)
    assert mine.shape == (2,)
    assert mine.min() > 0.01
    assert torch.allclose(mine, expected.flatten(), rtol=TOLERANCE, atol=0)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0
    assert (own - gradient).abs().max() <= TOLERANCE * gradient.abs().max()
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def legacy(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, legacy, save_file], ids=["zip", "legacy", "safetensors"])
def test_two_files_are_one_network(
    save: Callable[[dict[str, Tensor], Path], None], ours: LPIPS, vgg: dict[str, Tensor], linear: Path, tmp_path: Path
) -> None:
    save(vgg, tmp_path / "vgg16")
    both = load_lpips([tmp_path / "vgg16", linear])
    expected = ours.state_dict()
    assert both.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in both.state_dict().items())


def test_every_name_is_one_of_theirs(theirs: nn.Module) -> None:
    known = theirs.state_dict().keys()
    names = lpips_names()
    assert names.keys() == LPIPS().state_dict().keys()
    taken = [next(name for name in them if name in known) for them in names.values()]
    assert len(set(taken)) == len(taken) == 13 * 2 + 5


def test_equal_pictures_are_at_no_distance_and_give_no_gradient(ours: LPIPS) -> None:
    """Also where no channel answers, as in a flat picture under random weights."""
    a = torch.cat((pictures(1)[:1], torch.full((1, 3, 32, 48), -1.0))).requires_grad_()
    distance = ours(a, a.detach().clone())
    distance.sum().backward()
    assert (distance == 0).all()
    assert a.grad is not None
    assert (a.grad == 0).all()


def test_a_silent_place_has_a_finite_gradient() -> None:
    network = LPIPS()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    for weights in network.weights:
        nn.init.ones_(weights)
    a = pictures(1).requires_grad_()
    network(a, pictures(2)).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_in_bfloat16_the_distance_itself_is_float32(ours: LPIPS) -> None:
    a, b = pictures(1), pictures(2)
    with torch.autocast("cpu", torch.bfloat16):
        low = ours(a, b)
    assert low.dtype == torch.float32
    assert torch.allclose(low, ours(a, b), rtol=0.02)


def test_what_is_missing_or_of_another_network_is_named(vgg: dict[str, Tensor], linear: Path, tmp_path: Path) -> None:
    save_file(vgg, tmp_path / "vgg16.safetensors")
    with pytest.raises(ValueError, match=r"no lin0\.model\.1\.weight for LPIPS; expected lpips's weights/v0\.1/vgg"):
        load_lpips([tmp_path / "vgg16.safetensors"])
    with pytest.raises(ValueError, match=r"no features\.0\.weight for LPIPS; expected torchvision's vgg16-397923af"):
        load_lpips([linear])
    with pytest.raises(ValueError, match="no file: no features"):
        load_lpips([])
    with pytest.raises(ValueError, match=r"weights\.1 is \(192,\); expected \(128,\)"):
        load_lpips([tmp_path / "vgg16.safetensors", linear.with_name("alex.pth")])
    (tmp_path / "cut.pth").write_bytes(linear.read_bytes()[:1000])
    for damaged in (tmp_path / "cut.pth", tmp_path / "nowhere.pth"):
        with pytest.raises(ValueError, match=rf"{damaged.name}.* (its pickle is damaged|cannot be read)"):
            load_lpips([damaged])
    with pytest.raises(ValueError, match="15 x 32: LPIPS expects sides of 16 or more"):
        LPIPS().features(torch.zeros(1, 3, 32, 15))
