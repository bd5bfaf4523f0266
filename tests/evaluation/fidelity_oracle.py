"""torch-fidelity's arithmetic and its Inception network, and torchmetrics' figures. The former imports torchvision (the
latter imports the former), which we do without: meanwhile empty classes stand in for everything of that name, and
nothing used here calls them."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType


class _Absent(ModuleType):
    def __init__(self, name: str, **known: ModuleType) -> None:
        super().__init__(name)
        vars(self).update(known, __path__=[])

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def _stand_ins() -> Generator[None]:
    """They go afterwards: others look torchvision up to see whether it is there."""
    functional, datasets = _Absent("torchvision.transforms.functional"), _Absent("torchvision.datasets")
    transforms = _Absent("torchvision.transforms", functional=functional)
    whole = _Absent("torchvision", transforms=transforms, datasets=datasets)
    names = {one.__name__: one for one in (whole, transforms, functional, datasets)}
    sys.modules.update(names)
    yield
    for name in names:
        del sys.modules[name]


with _stand_ins():
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure  # noqa: E402
from torchmetrics.image.fid import _compute_fid as torchmetrics_frechet_distance  # noqa: E402
from torchmetrics.image.kid import poly_mmd  # noqa: E402

__all__ = [
    "FeatureExtractorInceptionV3",
    "fid_features_to_statistics",
    "fid_statistics_to_metric",
    "interpolate_bilinear_2d_like_tensorflow1x",
    "isc_features_to_metric",
    "kid_features_to_metric",
    "peak_signal_noise_ratio",
    "poly_mmd",
    "prc_features_to_metric",
    "structural_similarity_index_measure",
    "torchmetrics_frechet_distance",
]
