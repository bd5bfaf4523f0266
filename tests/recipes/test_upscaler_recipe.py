"""What the upscaler learns is what it is asked for when it draws."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from miniature import needed, small

from tintype.checkpoints import load
from tintype.objectives.denoising import DenoisingObjective
from tintype.recipes.default_upscaler import DefaultUpscaler


@pytest.fixture
def recipe(finished: Callable[[str], Path]) -> DefaultUpscaler:
    made = small("default_upscaler", *needed("default_upscaler", finished))
    assert isinstance(made, DefaultUpscaler)
    return made


def test_it_is_trained_on_what_the_published_model_answers(
    recipe: DefaultUpscaler, finished: Callable[[str], Path], tmp_path: Path
) -> None:
    objective = recipe.prepare(tmp_path).objective
    assert isinstance(objective, DenoisingObjective)
    published = load(finished("default_upscaler") / "model").denoiser
    assert objective.denoiser.relative
    assert published.relative
    level = torch.tensor(0.3, dtype=torch.float64)
    assert objective.denoiser.scaling(level) == published.scaling(level)
    assert float(published.scaling(level).skip) == pytest.approx(recipe.difference**2 / (recipe.difference**2 + 0.09))


def test_it_is_shown_another_latent_than_the_one_it_is_to_draw(recipe: DefaultUpscaler, tmp_path: Path) -> None:
    batch = recipe.prepare(tmp_path).source.batch(0, 8)
    difference = batch["mean"] - batch["beside"]
    assert difference.abs().flatten(1).mean(dim=1).min() > 1e-4
    assert difference.std() < batch["mean"].std()  # of the same pictures, though


def test_a_network_that_is_told_no_level_is_refused(finished: Callable[[str], Path], tmp_path: Path) -> None:
    unet = '{"in_channels":8,"out_channels":4,"width":8,"mult":[1],"num_blocks":1,"depth":[0],"context_dim":null}'
    with pytest.raises(ValueError, match="num_classes null: expected how many levels of noise"):
        small("default_upscaler", *needed("default_upscaler", finished), f"unet={unet}").prepare(tmp_path)
