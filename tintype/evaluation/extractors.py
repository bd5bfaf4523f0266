"""Networks whose features pictures are compared by. Distances of two extractors cannot be compared with each other."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.checkpoints.clip import load_clip
from tintype.checkpoints.native import load_network, load_strict
from tintype.checkpoints.tensors import open_tensors
from tintype.common.digests import weights_digest
from tintype.evaluation.pixels import from_bytes
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.models.inception import CLASSES, FEATURES, Inception
from tintype.nn.weightless import weightless


@dataclass(frozen=True, slots=True)
class Features:
    """What a network sees in B pictures: `pooled` B D; `logits` B K of its classes, None where it has none."""

    pooled: Tensor
    logits: Tensor | None = None


class Extractor(Protocol):
    """image: B 3 H W uint8, as picture files hold it -> Features. `name` says which network with which weights, `dim`
    and `classes` how many features and logits (0: none)."""

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def classes(self) -> int: ...
    def __call__(self, image: Tensor, /) -> Features: ...


def load_judge(weights: Path | None = None) -> tuple[Classifier, str]:
    """The classifier of emoji inside the package or of another file, and 10 digits that tell its weights."""
    with resources.as_file(resources.files("tintype.weights") / "judge.safetensors") as shipped:
        file = weights or shipped
        classifier = load_network(file, "classifier", ClassifierConfig, Classifier)
        return classifier, file_digest(file)


class JudgeFeatures:
    """The classifier of emoji: what its head reads, averaged over places as Inception's is, and its logits.

    Ours, and good for emoji scenes alone: distances by it are no FID of any paper. Pictures of another size than it
    learned from are resized (bilinear, antialiased).
    """

    def __init__(self, *, weights: Path | None = None, device: torch.device | str = "cpu") -> None:
        classifier, digest = load_judge(weights)
        self.classifier = classifier.to(device)
        self.device = device
        self.name = f"judge-{digest}"
        self.dim = classifier.config.widths[-1]
        self.classes = classifier.config.num_classes

    @torch.inference_mode()
    def __call__(self, image: Tensor, /) -> Features:
        side = self.classifier.config.image_size
        x = from_bytes(image.to(self.device))
        if x.shape[-2:] != (side, side):
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
        seen = F.silu(self.classifier.norm(self.classifier.features(x)[-1]))  # B D h w
        return Features(seen.mean(dim=(2, 3)), self.classifier.head(seen.flatten(1)))


class ClipFeatures:
    """The image tower of a CLIP, in any layout: features of length 1, no classes. Distances by it are no FID."""

    classes = 0

    def __init__(self, weights: Path, *, device: str = "cpu") -> None:
        self.clip = load_clip(weights, device=device)
        self.name = f"clip-{state_digest(self.clip.network)}"
        self.dim = self.clip.config.clip.image.projection_dim or self.clip.config.clip.image.width

    def __call__(self, image: Tensor, /) -> Features:
        return Features(self.clip.encode_pictures([one.numpy() for one in image.permute(0, 2, 3, 1).cpu()]))


INCEPTION = "inception-2015-12-05"
INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_PLACE = "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights"


class InceptionFeatures:
    """The network that FID is defined by, its weights from a file of the user's: the one named above, or the same as
    .safetensors. Features are those of the last pooling, logits without their bias.

    Raises `ValueError` for a file that is not there or holds other weights.
    """

    def __init__(self, weights: Path, *, device: torch.device | str = "cpu") -> None:
        if not weights.is_file():
            raise ValueError(
                f"{weights}: no such file; expected Inception's weights: {INCEPTION_FILE} from {INCEPTION_PLACE}"
            )
        file = open_tensors(weights)
        with weightless():
            self.network = Inception()
        tensors = {name: file.read(name).float() for name in file.tensors if not name.endswith(".num_batches_tracked")}
        load_strict(self.network, tensors, str(weights))
        self.network.eval().requires_grad_(False).to(device)
        self.device = device
        self.name = f"{INCEPTION}-{file_digest(weights)}"
        self.dim, self.classes = FEATURES, CLASSES

    @torch.inference_mode()
    def __call__(self, image: Tensor, /) -> Features:
        return Features(*self.network(image.to(self.device)))


def file_digest(path: Path) -> str:
    """10 digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:10]


def state_digest(network: nn.Module) -> str:
    """10 digits of the SHA-256 of all weights, whatever files they came from."""
    return weights_digest(network.state_dict())[:10]
