"""Sampling: integrate the learnt velocity from noise (sigma = 1) to data (sigma = 0).

Paper: inference of the server model (40 steps, guidance) and of the four-step baseline. Solvers are diffusers' own; the
grid is set by hand, because their defaults differ from one another: `FlowMatchEulerDiscreteScheduler.set_timesteps(4)`
ends in a useless step from .001 and applies a shift twice, and the multistep solvers round timesteps down to integers.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mobivid_core.errors import ParameterError
from mobivid_core.flow.guidance import Guidance, as_guidance
from mobivid_core.flow.path import TIMESTEP_SCALE, null_condition, predicted_velocity

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

Solver = Literal["euler", "unipc", "dpm++"]
#: Multistep solvers take log(1 - sigma), which is infinite at pure noise; diffusers steps back by as much.
_PURE_NOISE = 1 - 1e-6


def textbook_sigmas(steps: int) -> list[float]:
    """Equal steps from noise to data: [1, 1 - 1/n, ..., 1/n]; the final 0 is left to the scheduler.

    Raises:
        ParameterError: Fewer than one step.
    """
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
        raise ParameterError(f"sampling needs at least one step, a whole number; got {steps!r}")
    return [1 - i / steps for i in range(steps)]


def make_scheduler(kind: Solver = "euler", shift: float = 1.0) -> SchedulerMixin:
    """A diffusers flow-matching solver.

    Args:
        kind: "euler" (first order), "unipc" (UniPC, order 2: the training-free baseline in few steps),
            "dpm++" (DPM-Solver++ 2M).
        shift: sigma -> shift sigma / (1 + (shift - 1) sigma); above 1 spends more steps near noise.

    Raises:
        ParameterError: Unknown kind.
    """
    import diffusers

    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    if kind == "euler":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    if kind == "unipc":
        return diffusers.UniPCMultistepScheduler(**flow)
    if kind == "dpm++":
        return diffusers.DPMSolverMultistepScheduler(**flow)
    raise ParameterError(f'unknown solver {kind!r}; use "euler", "unipc" or "dpm++"')


def check_scheduler(scheduler: object) -> None:
    """Refuse solvers that do not integrate a flow's velocity on a given grid.

    Raises:
        ParameterError: Another class, or one set up for something else than `make_scheduler` sets it up for.
    """
    import diffusers

    config = getattr(scheduler, "config", {})
    if type(scheduler) is diffusers.FlowMatchEulerDiscreteScheduler:
        # each of these changes the step itself, or wants more than a grid
        wrong = [name for name in ("use_dynamic_shifting", "stochastic_sampling", "invert_sigmas") if config.get(name)]
        why = f"it is set up with {', '.join(wrong)}" if wrong else ""
    elif type(scheduler) in (diffusers.UniPCMultistepScheduler, diffusers.DPMSolverMultistepScheduler):
        flow = config.get("prediction_type") == "flow_prediction" and config.get("use_flow_sigmas")
        why = "" if flow else "it is not set up with prediction_type='flow_prediction' and use_flow_sigmas=True"
    else:
        why = "it is none of the flow-matching solvers known here"
    if why:
        raise ParameterError(
            f"the scheduler {type(scheduler).__name__} cannot sample this model: {why}; take "
            'mobivid_core.flow.sampling.make_scheduler("euler"), "unipc" or "dpm++"'
        )


def set_textbook_sigmas(scheduler: SchedulerMixin, steps: int, device: torch.device | str | None = None) -> None:
    """Put `scheduler` on the textbook grid (shifted once, if the scheduler has a shift).

    Args:
        scheduler: From `make_scheduler`, or any diffusers flow scheduler with `sigmas` and `timesteps`.
        steps: Number of model evaluations.
        device: Where the timesteps lie.
    """
    shift = scheduler.config.shift if "shift" in scheduler.config else scheduler.config.flow_shift
    sigmas = torch.tensor(textbook_sigmas(steps), dtype=torch.float64)
    set_sigmas(scheduler, (shift * sigmas / (1 + (shift - 1) * sigmas)).float(), device)


def set_sigmas(scheduler: SchedulerMixin, sigmas: Tensor, device: torch.device | str | None = None) -> None:
    """Put `scheduler` on any noise levels.

    Args:
        scheduler: As in `set_textbook_sigmas`.
        sigmas: (n,) falling from 1; the final 0 is added here.
        device: Where the timesteps lie.
    """
    scheduler.set_timesteps(len(sigmas), device=device)
    scheduler.timesteps = (TIMESTEP_SCALE * sigmas).to(device)
    if "shift" not in scheduler.config:  # multistep
        sigmas = sigmas.clamp(max=_PURE_NOISE)
    # Overwritten rather than passed: only some of the solvers accept a grid, and they keep integer timesteps.
    scheduler.sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    scheduler.set_begin_index(0)


def guided_velocity(
    model: Callable,
    x: Tensor,
    timestep: Tensor,
    text: Tensor,
    mask: Tensor,
    null: tuple[Tensor, Tensor] | None = None,
    guidance: float | Guidance = 1.0,
) -> Tensor:
    """v_null + guidance (v_text - v_null), both halves in one batch; v_text alone where there is no guidance.

    Args:
        model: Called as model(x, timestep, text, mask).
        x: (B, C, t, h, w) noisy latents.
        timestep: Scalar tensor, 1000 * sigma.
        text: (B, L, D) caption states.
        mask: (B, L) bool.
        null: The empty caption's states and mask, already of the shapes of `text` and `mask`; None is no guidance.
        guidance: Classifier-free guidance: a scale, or a `Guidance`. Outside its interval, and at scale 1, the model
            is not asked about the empty caption.
    """
    guidance = as_guidance(guidance)
    plain = guidance.everywhere and guidance.rescale == 0
    sigma = 1.0 if plain else float(timestep) / TIMESTEP_SCALE  # a constant scale needs no look at the device
    if null is None or guidance.at(sigma) == 1:
        return predicted_velocity(model(x, timestep.expand(len(x)), text, mask))
    both = model(
        torch.cat([x, x]), timestep.expand(2 * len(x)), torch.cat([null[0], text]), torch.cat([null[1], mask.bool()])
    )
    without, with_text = predicted_velocity(both).chunk(2)
    return guidance.combine(x, sigma, without, with_text)


def in_bfloat16(model: Callable) -> Callable:
    """`model` under bfloat16 autocast: a velocity in the precision of the latents it is called with.

    Forty guided steps of the teacher differ by 1.4 % of the latents' norm, its clips by less than a grey level (the
    worst of 32 has a PSNR of 49 dB against its float32 twin). Steps and guidance stay in float32.
    """

    def velocity(x: Tensor, *conditions: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return predicted_velocity(model(x, *conditions)).to(x)

    return velocity


@torch.no_grad()
def sample_latents(
    model: Callable,
    text: Tensor,
    mask: Tensor,
    shape: tuple[int, ...],
    *,
    steps: int,
    guidance: float | Guidance = 1.0,
    null_text: Tensor | None = None,
    null_mask: Tensor | None = None,
    solver: Solver = "euler",
    shift: float = 1.0,
    generator: torch.Generator | int | None = None,
    noise: Tensor | None = None,
    batch: int = 64,
    progress: bool = False,
) -> Tensor:
    """Generate latents for a list of encoded captions.

    Args:
        model: Called as model(x, timestep, text, mask) only.
        text: (B, L, D) caption states.
        mask: (B, L) bool.
        shape: Latent shape (C, t, h, w), as `vae.latent_shape` gives it; (B, C, t, h, w) is accepted too.
        steps: Steps of the solver; each evaluates the model once, twice where it is guided (`Guidance.evaluations`).
        guidance: Scale of classifier-free guidance, or a `Guidance`; all but scale 1 need `null_text`, `null_mask`.
        null_text: (1, M, D) states of "".
        null_mask: (1, M) bool.
        solver: As in `make_scheduler`.
        shift: As in `make_scheduler`.
        generator: Generator or seed of the noise. All noise is drawn at once, so `batch` never changes a result.
        noise: (B, C, t, h, w) instead of drawing.
        batch: Samples evaluated together.
        progress: Show a progress bar.

    Returns:
        (B, C, t, h, w) normalised latents.

    Raises:
        ParameterError: Guidance without an empty caption, or noise of another shape.
    """
    guidance = as_guidance(guidance)
    if guidance.needed and (null_text is None or null_mask is None):
        raise ParameterError(
            f"guidance {guidance:g} needs the empty caption: pass null_text and null_mask (encode_text(['']))"
        )
    shape = (len(text), *shape[-4:])
    noise = _draw(shape, generator, text.device) if noise is None else noise.to(text.device)
    if tuple(noise.shape) != shape:
        raise ParameterError(
            f"noise must be {shape}, one latent for each of {len(text)} captions, got {tuple(noise.shape)}"
        )
    done = []
    for first in _chunks(len(text), batch, progress):
        part = slice(first, first + batch)
        null = null_condition(text[part], null_text, null_mask) if guidance.needed else None
        scheduler = make_scheduler(solver, shift)
        set_textbook_sigmas(scheduler, steps, text.device)
        x = noise[part]
        for timestep in scheduler.timesteps:
            v = guided_velocity(model, x, timestep, text[part], mask[part], null, guidance)
            x = scheduler.step(v, timestep, x, return_dict=False)[0]
        done.append(x)
    return torch.cat(done)


def _draw(shape: tuple[int, ...], generator: torch.Generator | int | None, device: torch.device) -> Tensor:
    """Standard normal noise; an integer seeds a CPU generator, so that a seed means the same on every device."""
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    source = device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=source).to(device)


def _chunks(n: int, batch: int, progress: bool) -> range | object:
    starts = range(0, n, batch)
    if not progress:
        return starts
    from tqdm import tqdm

    return tqdm(starts, desc="sampling", unit="batch")
