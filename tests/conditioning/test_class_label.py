import pytest
import torch

from tintype.conditioning.class_label import ClassConditioner, ClassConfig


def test_a_class_is_a_context_of_one_token() -> None:
    conditioner = ClassConditioner(ClassConfig(num_classes=5, width=8, null_class=4))
    cond = conditioner([2, 0])
    assert cond.context is not None
    assert cond.context.shape == (2, 1, 8)
    assert torch.equal(cond.context[:, 0], conditioner.embedding.weight[[2, 0]])
    assert cond.vector is None
    assert cond.concat is None
    empty = conditioner.empty(3).context
    assert empty is not None
    assert torch.equal(empty, conditioner.embedding.weight[4].expand(3, 1, 8))


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_class_that_there_is_not(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"class {wrong}: this model has the classes 0 to 4"):
        ClassConditioner(ClassConfig(num_classes=5, width=8))([0, wrong])


def test_a_model_without_null_class_has_nothing_to_guide_away_from() -> None:
    with pytest.raises(ValueError, match=r"this model has no null class, .*expected cfg_scale 1"):
        ClassConditioner(ClassConfig(num_classes=5, width=8)).empty(1)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_null_class_is_one_of_the_classes(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"null_class {wrong}: expected 0 to 4"):
        ClassConfig(num_classes=5, null_class=wrong)
