"""Averages of chosen length: kept ones against the written-out sum, chosen ones against direct averaging."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import Regression, assert_equal, everything, run
from torch import Tensor, nn

from tintype.training.config import TrainConfig
from tintype.training.ema import EMA
from tintype.training.loop import Hook, Report
from tintype.training.power_ema import (
    LARGEST_STD,
    SNAPSHOTS,
    Snapshot,
    combination,
    forget_snapshots,
    gamma_of,
    power,
    reconstruct,
    save_snapshot,
)


@pytest.mark.parametrize("std", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_a_profile_has_its_standard_deviation(std: float) -> None:
    """By its moments, computed numerically."""
    t = np.linspace(0, 1, 200_001)
    profile = t ** gamma_of(std)
    profile /= profile.sum()
    mean = (t * profile).sum()
    assert np.sqrt(((t - mean) ** 2 * profile).sum()) == pytest.approx(std, rel=1e-3)


def test_exponents_of_the_paper() -> None:
    """Section 3.1: widths 5 % and 10 % are exponents 16.97 and 6.94."""
    assert [gamma_of(0.05), gamma_of(0.1)] == pytest.approx([16.97, 6.94], abs=0.005)


@pytest.mark.parametrize("std", [0.0, -0.1, LARGEST_STD, 0.5, float("nan")])
def test_what_no_profile_has_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match=r"relative standard deviation .*: expected more than 0 and less than 0\.2887"):
        gamma_of(std)
    with pytest.raises(ValueError, match="relative standard deviation"):
        TrainConfig(steps=1, batch_size=1, ema_stds=(0.05, std))


def walk(steps: int, size: int = 500) -> Tensor:
    """Weights as training moves them: a drift that slows down, and noise. steps size."""
    noise = torch.randn(steps, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drift = torch.linspace(0, 1, steps, dtype=torch.float64).sqrt()[:, None]
    return (drift * torch.linspace(-3, 3, size) + 0.02 * noise.cumsum(0) + 0.1 * noise).float()


def direct(path: Tensor, std: float) -> Tensor:
    """Update k of n weighs (k / n)^(gamma + 1) - ((k - 1) / n)^(gamma + 1)."""
    ends = (torch.arange(len(path) + 1, dtype=torch.float64) / len(path)) ** (gamma_of(std) + 1)
    return (ends.diff()[:, None] * path.double()).sum(0)


def kept(path: Tensor, std: float) -> EMA:
    module = nn.Linear(1, 1, bias=False)
    module.weight = nn.Parameter(torch.full_like(path[0], 1e6))  # what was before the first update weighs nothing
    return EMA(module, power(std))


@pytest.mark.parametrize("std", [0.05, 0.1, 0.25])
def test_a_kept_average_is_the_weighted_sum(std: float) -> None:
    path = walk(200)
    average, module = kept(path, std), nn.Linear(1, 1, bias=False)
    for step, weights in enumerate(path):
        module.weight = nn.Parameter(weights)
        average.update(module, step)
    torch.testing.assert_close(average.average["weight"].double(), direct(path, std), rtol=1e-5, atol=2e-6)


def test_any_length_is_made_of_snapshots(tmp_path: Path) -> None:
    """Twenty snapshots of two lengths. Direct averages of other lengths are met to a hundredth of what separates them
    from the plain end of training; what the snapshots cannot make up is refused."""
    path, stds, module = walk(2000), (0.05, 0.1), nn.Linear(1, 1, bias=False)
    averages = {std: kept(path, std) for std in stds}
    for step, weights in enumerate(path):
        module.weight = nn.Parameter(weights)
        for std, average in averages.items():
            average.update(module, step)
            if (step + 1) % 100 == 0:
                save_snapshot(tmp_path, "net", std, step + 1, average.state_dict() | {"number": torch.tensor(step)})
    for std, bound in ((0.05, 1e-4), (0.1, 1e-4), (0.03, 0.05), (0.07, 0.01), (0.15, 0.01), (0.2, 0.02)):
        made = reconstruct(tmp_path, "net", std)
        assert made["weight"].dtype == torch.float32
        assert made["number"] == 1999
        aim = direct(path, std)
        error = (made["weight"] - aim).norm() / (path[-1] - aim).norm()
        assert error < bound, (std, float(error))
    with pytest.raises(
        ValueError, match=r"0\.01: 40 snapshots make up its profile only to \d+%; expected 5% or better"
    ):
        reconstruct(tmp_path, "net", 0.01)
    with pytest.raises(ValueError, match=r"snapshots has no averages of other; train with --set train\.ema_stds="):
        reconstruct(tmp_path, "other", 0.1)


def test_what_is_missing_of_a_profile_is_told() -> None:
    """By the integral of the squared difference, computed numerically."""
    snapshots = [Snapshot(Path(), step, gamma_of(std)) for step in (50, 75, 100) for std in (0.05, 0.1)]
    wanted = Snapshot(Path(), 100, gamma_of(0.15))
    shares, error = combination(snapshots, wanted)
    t = (np.arange(400_000) + 0.5) / 4000

    def profile(one: Snapshot) -> np.ndarray:
        return np.where(t <= one.step, (one.gamma + 1) / one.step * (t / one.step) ** one.gamma, 0)

    made = sum(share * profile(one) for share, one in zip(shares, snapshots, strict=True))
    difference = ((made - profile(wanted)) ** 2).mean() / (profile(wanted) ** 2).mean()
    assert error == pytest.approx(np.sqrt(difference), rel=1e-3)
    assert 0.05 < error < 0.5


def stop_at(step: int) -> Hook:
    def hook(report: Report) -> None:
        if report.state.step == step:
            raise KeyboardInterrupt

    return hook


def test_a_run_keeps_them_and_resumes(tmp_path: Path) -> None:
    """Snapshots of what a killed run did after its last checkpoint give way."""
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    settings = {"ema_stds": (0.05, 0.1), "save_every": 4, "keep": 1}
    whole = run(tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", **settings, hooks=[stop_at(6)])
    later = tmp_path / "parts" / SNAPSHOTS / "network-0.05-00000006.safetensors"
    later.write_bytes(b"of a run that went otherwise")
    resumed = run(tmp_path / "parts", **settings)
    assert_equal(everything(resumed), everything(whole))
    assert not torch.equal(everything(whole)["network 0.05 4.weight"], everything(whole)["network 0.1 4.weight"])
    files = [sorted(path.name for path in (tmp_path / name / SNAPSHOTS).iterdir()) for name in ("whole", "parts")]
    assert files[0] == files[1]
    assert files[0] == [f"network-{std}-{step:08d}.safetensors" for std in ("0.05", "0.1") for step in (4, 8, 12)]
    made = reconstruct(tmp_path / "parts", "network", 0.1)
    for name, value in whole.powers["network", 0.1].state_dict().items():
        torch.testing.assert_close(made[name], value, rtol=1e-4, atol=1e-5)


def test_a_run_without_them_keeps_no_snapshots(tmp_path: Path) -> None:
    run(tmp_path, objective=Regression())
    assert not (tmp_path / SNAPSHOTS).exists()


def test_files_of_others_beside_snapshots_are_left_alone(tmp_path: Path) -> None:
    for step in (2, 4):
        save_snapshot(tmp_path, "network", 0.1, step, {"x": torch.zeros(1)})
    (tmp_path / SNAPSHOTS / "mine.safetensors").write_bytes(b"")
    forget_snapshots(tmp_path, 2)
    left = sorted(path.name for path in (tmp_path / SNAPSHOTS).iterdir())
    assert left == ["mine.safetensors", "network-0.1-00000002.safetensors"]
