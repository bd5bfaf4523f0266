"""DDIM inversion: the deterministic walk backwards, from a picture to the noise it would come from."""

import dataclasses

from torch import Tensor

from tintype.diffusion.denoiser import Denoiser
from tintype.diffusion.preset import Told


def backwards(denoiser: Denoiser, sigmas: Tensor) -> tuple[Denoiser, Tensor]:
    """The denoiser and the rising levels with which `euler` inverts DDIM on these falling ones (their last above 0).

    What the network says at a level is taken for what it would say at the next one, of which it is told the time
    (Mokady et al. 2023, eq. 3; diffusers' DDIMInverseScheduler). It is exact where eps does not change on the way.
    """
    assert sigmas[-1] > 0, "at level 0 there is no noise to divide by"
    rising = sigmas.flip(0)
    told = Told(denoiser.schedule, rising[:-1], denoiser.schedule.t(rising[1:]))
    return dataclasses.replace(denoiser, schedule=told), rising
