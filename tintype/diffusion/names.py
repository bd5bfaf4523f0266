"""The names under which people know samplers and spacings, and what each program means by them. Data; the samplers are
in `samplers`, what a `Preset` does with its choices in `preset`.

A name of ours means diffusers' picture where the model's family comes with diffusers' settings ("diffusers"), and the
bare sampler elsewhere ("plain").
"""

import dataclasses
from typing import Literal

from tintype.common.config import nearest
from tintype.diffusion.preset import Preset, Whole
from tintype.diffusion.samplers import SAMPLERS
from tintype.diffusion.spacing import SPACINGS

Conventions = Literal["plain", "diffusers"]

# diffusers 0.42: the classes' own choices, and set_alpha_to_one false as Stable Diffusion's scheduler files have it.
# Euler's kin do not round linspace, and lay Karras' levels between the ends of their training steps. The multistep
# solvers take the first of steps + 1, and tell the network whole steps (which only some of them round before they cut);
# the singlestep one knows no other spacing of training steps.
_EULER = Preset(
    sampler="euler",
    scheduler="linspace",
    means={"linspace": "uniform"},
    within="linspace",
    flagged=True,
    start="noise at the top",
)
_OPEN = {"linspace": "linspace_open", "leading": "leading_open"}
_WHOLE: dict[str, Whole] = {
    "karras": "rounded",
    "lu_lambdas": "rounded",
    "exponential": "floored",
    "beta": "floored",
}
_MULTISTEP = Preset(sampler="dpmpp_2m", scheduler="linspace", means=_OPEN, flagged=True, whole=_WHOLE)
_DPM2 = dataclasses.replace(_EULER, whole={"karras": "rounded"})


def _as(preset: Preset, sampler: str) -> Preset:
    return dataclasses.replace(preset, sampler=sampler)


DIFFUSERS = {
    "DDIMScheduler": Preset(sampler="ddim", scheduler="leading", last="least"),
    "DDPMScheduler": Preset(sampler="ddpm", scheduler="leading"),
    "PNDMScheduler": Preset(sampler="plms", scheduler="leading", last="least", averages="prediction"),
    "EulerDiscreteScheduler": _EULER,
    "EulerAncestralDiscreteScheduler": dataclasses.replace(_EULER, sampler="euler_ancestral", flagged=False),
    "HeunDiscreteScheduler": _as(_EULER, "heun"),
    "LMSDiscreteScheduler": _as(_EULER, "lms"),
    "KDPM2DiscreteScheduler": _as(_DPM2, "dpm_2"),
    "KDPM2AncestralDiscreteScheduler": _as(_DPM2, "dpm_2_ancestral"),
    "DPMSolverSDEScheduler": _as(_EULER, "dpmpp_sde"),
    "DPMSolverMultistepScheduler": _MULTISTEP,
    "DPMSolverSinglestepScheduler": dataclasses.replace(_MULTISTEP, sampler="dpmpp_2s", firm=True),
    "UniPCMultistepScheduler": _as(_MULTISTEP, "unipc"),
    "DEISMultistepScheduler": dataclasses.replace(_MULTISTEP, sampler="deis", last="least"),
    "LCMScheduler": Preset(sampler="lcm", scheduler="lcm", firm=True),
    "TCDScheduler": Preset(sampler="tcd", scheduler="lcm", firm=True, last="least"),
}
# of the classes above with other settings (the full PNDM; algorithm_type="sde-dpmsolver++"; solver_order=3), and
# k-diffusion's samplers that diffusers has not
_OURS = {
    **{preset.sampler: preset for preset in DIFFUSERS.values()},
    "pndm": Preset(sampler="pndm", scheduler="leading", last="least", averages="prediction"),
    "ipndm": Preset(sampler="ipndm", scheduler="leading"),
    "dpmpp_2m_sde": _as(_MULTISTEP, "dpmpp_2m_sde"),
    "unipc_bh1": _as(_MULTISTEP, "unipc_bh1"),
    "unipc_bh2": _as(_MULTISTEP, "unipc_bh2"),
    "dpmpp_2m_sde_heun": Preset(sampler="dpmpp_2m_sde_heun", scheduler="exponential"),
    "dpmpp_3m_sde": Preset(sampler="dpmpp_3m_sde", scheduler="exponential"),
    "dpmpp_2s_ancestral": Preset(sampler="dpmpp_2s_ancestral", scheduler="karras"),
    "dpm_fast": Preset(sampler="dpm_fast", scheduler="uniform"),
    "dpm_adaptive": Preset(sampler="dpm_adaptive", scheduler="uniform"),
    "restart": Preset(sampler="restart", scheduler="karras"),
}

# A1111 1.10 (modules/sd_samplers_kdiffusion.py, sd_samplers_timesteps.py): the first x is noise alone, times are not
# rounded, eta is 1 for all that take one, and unasked ("Automatic") each has its own spacing. Its DDIM and PLMS never
# take the step from the last training step to the picture, its UniPC goes to the least of continuous times.
_STEPS = Preset(sampler="ddim", scheduler="ddim_uniform", last="stop")
_A1111 = {
    "Euler a": Preset(sampler="euler_ancestral", scheduler="uniform", start="noise"),
    "Euler": Preset(sampler="euler", scheduler="uniform", start="noise"),
    "LMS": Preset(sampler="lms", scheduler="uniform", start="noise"),
    "Heun": Preset(sampler="heun", scheduler="uniform", start="noise"),
    "DPM2": Preset(sampler="dpm_2", scheduler="karras", start="noise", skipped=True),
    "DPM2 a": Preset(sampler="dpm_2_ancestral", scheduler="karras", start="noise", skipped=True),
    "DPM++ 2S a": Preset(sampler="dpmpp_2s_ancestral", scheduler="karras", start="noise"),
    "DPM++ 2M": Preset(sampler="dpmpp_2m", scheduler="karras", start="noise"),
    "DPM++ SDE": Preset(sampler="dpmpp_sde", scheduler="karras", start="noise"),
    "DPM++ 2M SDE": Preset(sampler="dpmpp_2m_sde", scheduler="exponential", start="noise"),
    "DPM++ 2M SDE Heun": Preset(sampler="dpmpp_2m_sde_heun", scheduler="exponential", start="noise"),
    "DPM++ 3M SDE": Preset(sampler="dpmpp_3m_sde", scheduler="exponential", start="noise", skipped=True),
    "DPM fast": Preset(sampler="dpm_fast", scheduler="uniform", eta=1.0, start="noise"),
    "DPM adaptive": Preset(sampler="dpm_adaptive", scheduler="uniform", eta=1.0, start="noise"),
    "Restart": Preset(sampler="restart", scheduler="karras", start="noise"),
    "DDIM": _STEPS,
    "PLMS": _as(_STEPS, "plms"),
    "UniPC": Preset(sampler="unipc_bh1", scheduler="time_uniform", last="stop"),
    "LCM": Preset(sampler="lcm", scheduler="lcm_strides", start="noise", whole={"lcm_strides": "taught"}),
}
A1111 = {name: dataclasses.replace(preset, firm=True) for name, preset in _A1111.items()}
A1111_SPACINGS = {
    "Uniform": "uniform",
    "Karras": "karras",
    "Exponential": "exponential",
    "Polyexponential": "polyexponential",
    "SGM Uniform": "sgm_uniform",
    "KL Optimal": "kl_optimal_least",
    "Align Your Steps": "ays_sd1_least",
    "Simple": "simple",
    "Normal": "uniform",
    "DDIM": "ddim_uniform",
    "Beta": "beta",
    "Turbo": "turbo",
}
A1111_XL = {"ays_sd1_least": "ays_sdxl_least"}  # what a spacing of A1111's is where the model is SDXL
# Its other names: of samplers, which "_ka" makes Karras', and of spacings
A1111_ALIASES = {
    "k_euler_a": "Euler a",
    "k_euler_ancestral": "Euler a",
    "k_euler": "Euler",
    "k_lms": "LMS",
    "k_heun": "Heun",
    "k_dpm_2": "DPM2",
    "k_dpm_2_a": "DPM2 a",
    "k_dpmpp_2s_a": "DPM++ 2S a",
    "k_dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_sde": "DPM++ SDE",
    "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "k_dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "k_dpmpp_3m_sde": "DPM++ 3M SDE",
    "k_dpm_fast": "DPM fast",
    "k_dpm_ad": "DPM adaptive",
    "k_lcm": "LCM",
}
A1111_SPACING_ALIASES = {"sgmuniform": "sgm_uniform", "align_your_steps": "ays_sd1_least"}

# ComfyUI's (comfy/samplers.py) are ours but for these; its first x has signal and noise together. Not here, since they
# are ours or A1111's with another meaning: its ddim is euler, its beta our beta_steps.
COMFY = {
    "uni_pc": Preset(sampler="unipc_bh1", last=0.001),
    "uni_pc_bh2": Preset(sampler="unipc_bh2", last=0.001),
    "dpmpp_sde_gpu": Preset(sampler="dpmpp_sde"),
    "dpmpp_2m_sde_gpu": Preset(sampler="dpmpp_2m_sde"),
    "dpmpp_2m_sde_heun_gpu": Preset(sampler="dpmpp_2m_sde_heun"),
    "dpmpp_3m_sde_gpu": Preset(sampler="dpmpp_3m_sde"),
}
COMFY_SPACINGS = {"normal": "uniform"}

_OTHERS = DIFFUSERS | A1111 | COMFY
_SHORT = {name.removesuffix("Scheduler").casefold(): name for name in DIFFUSERS}
_FOLDED = _SHORT | A1111_ALIASES | {name.casefold(): name for name in _OTHERS}
_SPACINGS = {name.casefold(): ours for name, ours in (COMFY_SPACINGS | A1111_SPACINGS | A1111_SPACING_ALIASES).items()}


def preset(name: str, conventions: Conventions = "plain") -> Preset:
    """What a sampler's name stands for. Raises `ValueError` with the nearest names."""
    name, _ = canonical(name)
    if name in _OTHERS:
        return _OTHERS[name]
    return _OURS[name] if conventions == "diffusers" else Preset(sampler=name)


def canonical(name: str) -> tuple[str, str | None]:
    """The name as its program writes it, and our name of the spacing that follows it ("DPM++ 2M Karras"): ours, a
    diffusers class, A1111's or ComfyUI's. Capitals matter only between ours and another's (euler, Euler).

    Raises `ValueError` with the nearest names.
    """
    if name in SAMPLERS:
        return name, None
    folded = name.casefold()
    if folded in _FOLDED:
        return _FOLDED[folded], None
    if folded.removesuffix("_ka") in A1111_ALIASES:
        return A1111_ALIASES[folded.removesuffix("_ka")], "karras"
    for label, spacing in _SPACINGS.items():
        found = _FOLDED.get(folded.removesuffix(f" {label}"))
        if found in A1111 and folded.endswith(f" {label}"):
            return found, spacing
    raise ValueError(f"unknown sampler {name!r}; expected {nearest(name, [*_OTHERS, *SAMPLERS])}")


def spacing(name: str) -> str:
    """Our name of a spacing. Raises `ValueError` with the nearest names."""
    if name in SPACINGS:
        return name
    if name.casefold() not in _SPACINGS:
        raise ValueError(f"unknown scheduler {name!r}; expected {nearest(name, [*A1111_SPACINGS, *SPACINGS])}")
    return _SPACINGS[name.casefold()]


def label(sampler: str) -> str:
    """The name under which most people know a sampler: A1111's, where it has it."""
    if sampler in _OTHERS:
        return sampler
    return next((name for name, preset in A1111.items() if preset.sampler == sampler), sampler)


def spacing_label(scheduler: str) -> str:
    """A1111's name of one of our spacings, where it has one."""
    plain = next((name for name, xl in A1111_XL.items() if xl == scheduler), scheduler)
    return next((name for name, ours in A1111_SPACINGS.items() if ours == plain), scheduler)


def also_known_as(sampler: str) -> list[str]:
    """The names that others have for a sampler of ours, each with its own choices."""
    return [name for name, preset in _OTHERS.items() if preset.sampler == sampler]
