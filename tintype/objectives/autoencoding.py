"""The first stage: reconstruction through a Gaussian bottleneck or a codebook, judged by eye and by a critic.

L1, L2, edges, a perceptual distance, KL or the codebook's terms, and an adversarial term whose weight follows the
gradients (LDM, appendix G; Esser et al. 2021, section 3.1). With `pixel_sums` and LPIPS it is the loss of CompVis's
LPIPSWithDiscriminator, with means and a codebook that of VQLPIPSWithDiscriminator.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.models.autoencoder import Autoencoder, Posterior
from tintype.models.critic import Critic
from tintype.objectives.adversarial import CRITIC_LOSSES, AdversarialConfig, adaptive_weight, frozen
from tintype.objectives.base import Batch, Processes
from tintype.objectives.codebook import CodebookConfig
from tintype.objectives.round_trip import Reconstruction, RoundTrip

Distance = Callable[[Tensor, Tensor], Tensor]  # of pictures B 3 H W each: B; a FeatureDistance, or LPIPS


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencodingConfig:
    """Weights of the terms; each term is a mean over its elements, pictures being in [-1, 1].

    With `pixel_sums` the reconstruction and the KL are sums over the elements of a picture and of its latent instead,
    as in LDM's KL models. `logvar` is the log-variance of the pixels: the reconstruction is divided by its exponential,
    and it is added; with `learn_logvar` it is a parameter that begins there.
    """

    l1: float = 1.0
    l2: float = 0.5
    edges: float = 0.5  # L1 of differences between neighbouring pixels
    kl: float = 1e-3
    features: float = 0.0
    features_from: int = 0  # step at which the feature distance sets in
    pixel_sums: bool = False
    logvar: float = 0.0
    learn_logvar: bool = False
    codebook: CodebookConfig = field(default_factory=CodebookConfig)
    adversarial: AdversarialConfig | None = None


class AutoencodingObjective:
    """Batches hold "image": B 3 H W in [-1, 1]. Parts "autoencoder" and, if the loss has an adversarial term,
    "critic"."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        config: AutoencodingConfig,
        *,
        features: Distance | None = None,
        critic: Critic | None = None,
    ) -> None:
        if config.features and features is None:
            raise ValueError(f"features weight {config.features}: a feature network is expected with it")
        if (critic is None) != (config.adversarial is None):
            raise ValueError("a critic and an adversarial term are expected together; leave out both or none")
        self.config = config
        self.features = features
        self.model = Reconstruction(
            autoencoder, config.codebook, logvar=config.logvar, learn_logvar=config.learn_logvar
        )
        self.critic = critic
        self.parts: Mapping[str, nn.Module] = {"autoencoder": self.model}
        if critic is not None:
            self.parts = {**self.parts, "critic": critic}

    def loss(self, part: str, batch: Batch, noise: torch.Generator, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = batch["image"]
        return self._critic_loss(image, noise, step) if part == "critic" else self._loss(image, noise, step)

    def settle(self, part: str, processes: Processes, *, skip: Tensor | None = None) -> dict[str, Tensor]:
        """The codebook takes in who used it."""
        learning, codebook = self.model.learning, self.model.autoencoder.codebook
        if part != "autoencoder" or learning is None or codebook is None:
            return {}
        return learning.settle(codebook.weight, processes, skip=skip)

    def _loss(self, image: Tensor, noise: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        trip = self.model(image, noise)
        reconstruction, terms = self._reconstruction(trip.decoded, image, step)
        regulariser, term = self._regulariser(trip)
        total, terms = reconstruction + regulariser, terms | term
        if self._plays(step):
            term, weight = self._adversarial(trip.decoded, reconstruction)
            total = total + weight * term
            terms |= {"adversarial": term, "adaptive weight": weight}
        if self.model.learning is not None and trip.indices is not None:
            self.model.learning.keep(trip.encoded.mean, trip.indices, noise)
        psnr = 10 * torch.log10(4 / F.mse_loss(trip.decoded.detach().clamp(-1, 1), image))
        return total, {name: value.detach() for name, value in terms.items()} | {"psnr": psnr}

    def _reconstruction(self, decoded: Tensor, image: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The negative log-likelihood of the picture (up to a constant), and its terms."""
        config, difference = self.config, decoded - image
        terms = {
            "l1": difference.abs().mean(),
            "l2": difference.square().mean(),
            "edges": difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean(),
        }
        weights = {"l1": config.l1, "l2": config.l2, "edges": config.edges, "features": config.features}
        if self.features is not None and config.features and step >= config.features_from:
            terms["features"] = self.features(decoded, image).mean()
        error = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        likelihood = error / self.model.logvar.exp() + self.model.logvar
        if config.learn_logvar:
            terms["logvar"] = self.model.logvar
        return likelihood * (math.prod(image.shape[1:]) if config.pixel_sums else 1), terms

    def _regulariser(self, trip: RoundTrip) -> tuple[Tensor, dict[str, Tensor]]:
        if trip.codebook_loss is not None:
            return self.config.codebook.weight * trip.codebook_loss, {"codebook": trip.codebook_loss}
        assert isinstance(trip.encoded, Posterior)
        kl = trip.encoded.kl()
        elements = math.prod(kl.shape[1:]) if self.config.pixel_sums else 1
        return self.config.kl * elements * kl.mean(), {"kl": kl.mean()}

    # The critic

    def _plays(self, step: int) -> bool:
        return self.config.adversarial is not None and step >= self.config.adversarial.start

    def _adversarial(self, decoded: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
        """How unreal the critic finds what was decoded, and the weight of that."""
        assert self.critic is not None
        assert self.config.adversarial is not None
        with frozen(self.critic):
            term = -self.critic(decoded).float().mean()
        weight = adaptive_weight(reconstruction, term, self.model.autoencoder.decoder.conv_out.weight)
        return term, self.config.adversarial.weight * weight

    def _critic_loss(self, image: Tensor, noise: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Of a new round trip, for the autoencoder has just been updated; before the critic's start a zero."""
        assert self.critic is not None
        assert self.config.adversarial is not None
        if not self._plays(step):
            return torch.stack([parameter.sum() for parameter in self.critic.parameters()]).sum() * 0, {}
        with torch.no_grad():
            decoded = self.model(image, noise).decoded
        real, fake = self.critic(image).float(), self.critic(decoded).float()
        loss = CRITIC_LOSSES[self.config.adversarial.loss](real, fake)
        return loss, {"real": real.detach().mean(), "fake": fake.detach().mean()}
