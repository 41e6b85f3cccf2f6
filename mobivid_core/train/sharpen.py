"""Fine-tune a VAE's decoder for sharp pictures: perceptual and adversarial terms beside the squared error.

The squared error alone is least for the mean of all pictures that a latent may stand for: a blurred one. The encoder
and the linear path stay frozen, so that latents, their statistics and every diffusion model of them stay valid.

The adversarial gradient is scaled to the other terms' at the last layer (VQGAN: Esser et al. 2021, eq. 7), and both
terms are turned down while PSNR on watched clips is further below its start than a budget. A run whose averaged weights
lose twice the budget, or whose loss is not finite, ends with the last average that was good, and says so.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mobivid_core.data.pool import VideoPool
from mobivid_core.errors import ParameterError, TrainingError
from mobivid_core.measure.borders import border_ratio, sharpness
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.models.vae_linear import to_frames
from mobivid_core.train.critic import PatchCritic, PerceptualDistance, draw_triples, hinge
from mobivid_core.train.loop import TrainResult, TrainSettings, train
from mobivid_core.train.vae import LATENT_NOISE, disturbed

#: Peak rate of the critic, and triples of neighbouring frames a clip that it judges.
_CRITIC_RATE, _TRIPLES = 4e-4, 2
#: Weight of the perceptual distance; size of the adversarial gradient at the last layer, as a share of the others'.
_PERCEPTUAL, _ADVERSARIAL = 0.005, 0.5
#: Clips that PSNR, sharpness and borders are watched on.
_WATCHED = 16
#: Change of the terms' gain at each look, while PSNR is below its budget or above.
_DOWN, _UP = 0.85, 1.05
#: Losses of PSNR, in budgets, up to which an average counts as good, and from which a run ends.
_GOOD, _LOST = 1.5, 2.0


class _Contest(nn.Module):
    """All that a run changes, as one module, so that its state can be saved and resumed.

    `average` are the decoding net's averaged weights, `good` the last of them that kept PSNR, `gain` the factor of the
    perceptual and adversarial terms, `start_db` PSNR on the watched clips before the first step.
    """

    def __init__(self, vae: MobiVidVAE, critic_width: int) -> None:
        super().__init__()
        self.vae = copy.deepcopy(vae).requires_grad_(False)
        self.vae.decoder_net.requires_grad_(True)
        self.critic = PatchCritic(critic_width)
        self.average = copy.deepcopy(vae.decoder_net).requires_grad_(False)
        self.good = copy.deepcopy(self.average)
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("start_db", torch.full((), math.nan))

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average towards the decoding net."""
        torch._foreach_lerp_(list(self.average.parameters()), list(self.vae.decoder_net.parameters()), 1 - decay)

    @torch.no_grad()
    def look(self, clips: Tensor, patch: int) -> dict[str, float]:
        """Quality of the average's reconstructions."""
        decoded = torch.cat([self._rebuilt(part) for part in clips.split(8)])
        error = (decoded - clips).square().mean((1, 2, 3, 4))
        psnr = float((10 * torch.log10(4 / error)).mean())
        if self.start_db.isnan():
            self.start_db.fill_(psnr)
        row = {"watched_db": psnr, "lost_db": float(self.start_db) - psnr}
        sharp = float(sharpness(decoded).mean() / sharpness(clips).mean())
        return row | {"sharpness": sharp, "borders": float(border_ratio(decoded, patch).mean())}

    def judge(self, lost_db: float, budget_db: float) -> None:
        """Keep a good average, and set the terms' gain by the PSNR lost."""
        if lost_db <= _GOOD * budget_db:
            self.good.load_state_dict(self.average.state_dict())
        self.gain.mul_(_UP if lost_db <= budget_db else _DOWN).clamp_(max=1.0)

    def _rebuilt(self, clips: Tensor) -> Tensor:
        z = self.vae.encode(clips).latent_dist.mode()
        linear = self.vae.linear_decoder(z)
        return (linear + self.average(z, linear)).clamp(-1, 1)


def sharpen_decoder(
    vae: MobiVidVAE,  # a trained VAE; not changed
    pool: VideoPool | Tensor | Sequence[Tensor],  # videos, as for `train_vae`
    *,
    steps: int,  # training steps
    device: torch.device | str = "cpu",  # where to train
    seconds: float | None = None,  # training time, as another end beside `steps`
    folder: Path | None = None,  # where to keep the training state; None keeps none
    batch: int = 16,  # clips a step
    crop: int = 128,  # side of a training crop in pixels
    frames: int = 17,  # frames of a window
    seed: int = 0,
    learning_rate: float = 2e-4,  # peak rate of the decoding net (AdamW)
    budget_db: float = 1.0,  # PSNR on the watched clips that the new terms may cost
    warmup: int = 100,  # steps in which the critic learns alone; then the adversarial term rises over as many
    ema: float = 0.995,  # decay of the averaged weights
    critic_width: int = 64,  # channels of the critic's first layer
    bf16: bool = False,  # run the VAE in bfloat16
    watch_every: int = 50,  # steps between looks at the watched clips, and rows of the log
    progress: bool = True,
) -> tuple[MobiVidVAE, TrainResult]:
    """Train the decoding net on; returns the VAE with averaged weights, and the log (`ended`: why, if early).

    `margin` is real minus fake logit; on the watched clips, without noise, are `watched_db`, `lost_db`, `sharpness`
    (Laplacian energy over the real clips') and `borders` (border ratio). ParameterError where there is no decoding net.
    """
    if vae.decoder_net is None:
        raise ParameterError("this VAE is linear (width 0): there is no decoding net to sharpen")
    pool = VideoPool.of(pool).to(device)
    torch.manual_seed(seed)
    contest, distance = _Contest(vae, critic_width).to(device), PerceptualDistance(device)
    patch = vae.config.ratio[1]
    crop = min(crop, pool.side) // patch * patch
    count, generator = min(_WATCHED, len(pool)), torch.Generator().manual_seed(seed + 1)
    watched = pool.draw(count, frames, crop, generator, augment=False)
    seen: dict[str, float] = {}

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor | float]:
        contest.follow(min(ema, (1 + step) / (10 + step)))
        if step % watch_every == 0 or not seen:  # a resumed run looks once more, for its log
            seen.update(contest.look(watched, patch))
        if step % watch_every == 0:
            contest.judge(seen["lost_db"], budget_db)
        clips = pool.draw(batch, frames, crop, generator)
        decoded = _decode(contest.vae, clips, generator, bf16)
        error = (decoded - clips).square().mean()
        real, fake = draw_triples(clips, decoded, _TRIPLES, generator)
        far = distance(to_frames(fake), to_frames(real))
        kept = error + contest.gain * _PERCEPTUAL * far
        ramp = min(max((step - warmup) / max(warmup, 1), 0.0), 1.0)
        push = _push(contest, fake, kept) if ramp else 0.0
        logits_real, logits_fake = contest.critic(torch.cat([real, fake.detach()])).chunk(2)
        critic = hinge(logits_real, logits_fake)
        return {
            "loss": kept + ramp * _ADVERSARIAL * contest.gain * push + critic,
            "psnr_db": 10 * torch.log10(4 / error.detach()), "perceptual": far, "critic": critic,
            "margin": logits_real.mean() - logits_fake.mean(), "gain": contest.gain,
        } | seen  # fmt: skip

    def ended(row: dict[str, float]) -> str | None:
        lost = row["lost_db"]
        if not lost <= _LOST * budget_db:  # NaN too
            return f"step {row['step']:.0f}: averaged weights had lost {lost:.2f} dB, budget {budget_db:g} dB"
        return None

    settings = TrainSettings(
        steps, seconds=seconds, learning_rate=_CRITIC_RATE, warmup=min(20, steps), ema=0.0, seed=seed,
        slow=("vae.",), slow_rate=learning_rate / _CRITIC_RATE, weight_decay=0.0, betas=(0.5, 0.95), clip_norm=10.0,
        log_every=watch_every,
    )  # fmt: skip
    try:
        result = train(contest, loss, settings, folder, title="sharpening", progress=progress, on_log=ended)
    except TrainingError as error:
        result = TrainResult(contest, ended=str(error))
    return _finished(vae, contest, watched, patch, budget_db), result


def _decode(vae: MobiVidVAE, clips: Tensor, generator: torch.Generator, bf16: bool) -> Tensor:
    """Clips through the frozen encoder, noise, and the decoder, in float32."""
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=bf16):
        with torch.no_grad():
            z = vae.encode(clips).latent_dist.mode().float()
        return vae.decode(disturbed(z, LATENT_NOISE * vae.latents_std, generator)).sample.float()


def _push(contest: _Contest, fake: Tensor, kept: Tensor) -> Tensor:
    """The adversarial term of the decoding net, with the other terms' gradient at the last layer."""
    contest.critic.requires_grad_(False)  # its own loss is another one
    push = -contest.critic(fake).mean()
    contest.critic.requires_grad_(True)
    last = contest.vae.decoder_net.out.weight
    sizes = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (kept, push)]
    return push * (sizes[0] / (sizes[1] + 1e-8)).clamp(max=1e3).detach()


def _finished(vae: MobiVidVAE, contest: _Contest, watched: Tensor, patch: int, budget_db: float) -> MobiVidVAE:
    """A copy of the VAE with the averaged net if that is good, else with the last one that was."""
    if contest.look(watched, patch)["lost_db"] <= _GOOD * budget_db:
        contest.good.load_state_dict(contest.average.state_dict())
    sharp = copy.deepcopy(vae).to(watched.device)
    sharp.decoder_net.load_state_dict(contest.good.state_dict())
    return sharp.eval()
