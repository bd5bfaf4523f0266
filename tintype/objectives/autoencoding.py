"""Reconstruction through a Gaussian bottleneck: L1 + L2 + edges + feature distance + KL (LDM, appendix G)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.models.autoencoder import Autoencoder, Posterior
from tintype.objectives.base import Batch
from tintype.objectives.perceptual import FeatureDistance


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencodingConfig:
    """Weights of the terms; each term is a mean over its elements, pictures being in [-1, 1]."""

    l1: float = 1.0
    l2: float = 0.5
    edges: float = 0.5  # L1 of differences between neighbouring pixels
    kl: float = 1e-3
    features: float = 0.0
    features_from: int = 0  # step at which the feature distance sets in


class AutoencodingObjective:
    """Batches hold "image": B 3 H W in [-1, 1]. One part, "autoencoder"."""

    def __init__(
        self, autoencoder: Autoencoder, config: AutoencodingConfig, *, features: FeatureDistance | None = None
    ) -> None:
        if config.features and features is None:
            raise ValueError(f"features weight {config.features}: a feature network is expected with it")
        if autoencoder.config.codebook_size is not None:
            raise ValueError("an autoencoder with a codebook: this objective expects a Gaussian latent; leave it out")
        self.autoencoder = autoencoder
        self.config = config
        self.features = features
        self.parts: Mapping[str, nn.Module] = {"autoencoder": autoencoder}

    def loss(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, config = batch["image"], self.config
        factor = self.autoencoder.config.factor
        shape = (
            len(image),
            self.autoencoder.config.latent_channels,
            image.shape[2] // factor,
            image.shape[3] // factor,
        )
        decoded, posterior = self.parts[part](image, torch.randn(shape, generator=noise).to(image.device))
        assert isinstance(posterior, Posterior)  # an autoencoder with a codebook was refused
        difference = decoded.float() - image
        terms = {
            "l1": difference.abs().mean(),
            "l2": difference.square().mean(),
            "edges": difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean(),
            "kl": posterior.kl().mean(),
        }
        if self.features is not None and config.features and step >= config.features_from:
            terms["features"] = self.features(decoded, image).mean()
        weights = {
            "l1": config.l1,
            "l2": config.l2,
            "edges": config.edges,
            "kl": config.kl,
            "features": config.features,
        }
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        psnr = 10 * torch.log10(4 / F.mse_loss(decoded.detach().float().clamp(-1, 1), image))
        return total, {name: term.detach() for name, term in terms.items()} | {"psnr": psnr}
