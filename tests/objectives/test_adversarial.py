"""The weight of the adversarial term where it is extreme; elsewhere it is CompVis's (test_compvis_losses.py)."""

import pytest
import torch

from tintype.objectives.adversarial import adaptive_weight


@pytest.mark.parametrize(
    ("reconstruction", "adversarial", "expected"),
    [(3.0, 0.5, 3 / 0.5001), (0.0, 0.5, 0.0), (2.0, 0.0, 1e4), (5.0, 1e-4, 1e4)],
)
def test_the_weight_is_the_ratio_of_gradients_within_bounds(
    reconstruction: float, adversarial: float, expected: float
) -> None:
    """A critic that has nothing to say yet would else weigh without limit: 20,000 and 25,000 here."""
    layer = torch.tensor([0.6, 0.8], requires_grad=True)
    direction = torch.tensor([0.8, -0.6])
    terms = [length * (layer * direction).sum() for length in (reconstruction, adversarial)]
    weight = adaptive_weight(terms[0], terms[1], layer)
    assert float(weight) == pytest.approx(expected, rel=1e-5)
    assert not weight.requires_grad
