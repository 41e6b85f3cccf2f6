"""Fine-tune a VAE's decoder for sharp pictures: perceptual and adversarial terms beside the squared error.

The squared error alone is least for the mean of all pictures that a latent may stand for: a blurred one. The encoder
and the linear path stay frozen, so that latents, their statistics and every diffusion model of them stay valid.

The critic classifies patches of three neighbouring frames as real or decoded: hinge loss (Lim and Ye 2017) and
spectrally normalised convolutions (Miyato et al. 2018), as in patch discriminators of image codecs (VQGAN: Esser et al.
2021). A logit sees 54 x 54 pixels: texture and edges, not scenes. The perceptual distance has LPIPS's form (Zhang et
al. 2018) on EfficientNet-lite0, all channels alike. One of the evaluation's metrics looks through the same network: a
VAE that was trained with it has an advantage there.

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
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mobivid_core.data.pool import VideoPool
from mobivid_core.errors import ParameterError, TrainingError
from mobivid_core.measure.borders import border_ratio, sharpness
from mobivid_core.measure.image_features import load_backbone, stage_features
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.models.vae_linear import to_frames
from mobivid_core.train.loop import TrainResult, TrainSettings, train
from mobivid_core.train.vae import LATENT_NOISE, disturbed

#: Neighbouring frames that the critic judges together.
_FRAMES = 3
#: Peak rate of the critic, and triples of neighbouring frames a clip that it judges.
_CRITIC_RATE, _TRIPLES = 4e-4, 2
#: Weight of the perceptual distance.
_PERCEPTUAL = 0.005
#: Clips that PSNR, sharpness and borders are watched on.
_WATCHED = 16
#: Change of the terms' gain at each look, while PSNR is below its budget or above.
_DOWN, _UP = 0.85, 1.05
#: Losses of PSNR, in budgets, up to which an average counts as good, and from which a run ends.
_GOOD, _LOST = 1.5, 2.0
#: Side of a block of the decoding net's last pixel shuffle.
_BLOCK = 4


class PatchCritic(nn.Module):
    """Three frames as nine channels to a map of logits at an eighth of the resolution; high means real.

    Computes in float32 (on a GPU in its TF32 units): power iteration and autocast do not mix.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = [3 * _FRAMES, width, 2 * width, 4 * width]
        down = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(sizes, sizes[1:], strict=False)]
        flat = [nn.Conv2d(4 * width, 4 * width, 3, padding=1), nn.Conv2d(4 * width, 1, 3, padding=1)]
        self.layers = nn.ModuleList(spectral_norm(layer) for layer in (*down, *flat))

    def forward(self, triples: Tensor) -> Tensor:
        """(N, 3, 3, H, W), colours before frames -> (N, 1, H / 8, W / 8)."""
        with torch.autocast(triples.device.type, enabled=False):
            x = triples.float().flatten(1, 2).contiguous(memory_format=torch.channels_last)
            for layer in self.layers[:-1]:
                x = F.leaky_relu(layer(x), 0.2)
            return self.layers[-1](x)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's loss: real logits above 1, fake ones below -1."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def draw_triples(clips: Tensor, others: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same `count` random triples of neighbouring frames of each clip.

    Two batches (B, 3, T, H, W), T >= 3, to two (count * B, 3, 3, H, W).
    """
    batch, frames = clips.shape[0], clips.shape[2]
    starts = torch.randint(frames - _FRAMES + 1, (count * batch, 1), generator=generator)
    times = (starts + torch.arange(_FRAMES)).to(clips.device)
    rows = torch.arange(batch, device=clips.device).repeat(count)[:, None]
    # indexed axes come first: (count * B, 3 frames, 3 colours, H, W)
    return clips[rows, :, times].transpose(1, 2), others[rows, :, times].transpose(1, 2)


class PerceptualDistance(nn.Module):
    """Mean squared distance of frozen features that have unit length at each place, summed over stages."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.net = copy.deepcopy(load_backbone()).to(device)

    def forward(self, frames: Tensor, real: Tensor) -> Tensor:
        """Scalar distance of two batches of frames (N, 3, H, W) in [-1, 1]; gradients flow to both."""
        both = torch.cat([frames, real]).contiguous(memory_format=torch.channels_last)
        total = frames.new_zeros(())
        for features in stage_features(self.net, both):
            unit = features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()
            mine, theirs = unit.chunk(2)
            total = total + (mine - theirs).square().sum(1).mean()
        return total


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
    adversarial: float = 0.5,  # size of the adversarial gradient at the last layer, as a share of the other terms'
    seam: float = 0.0,  # weight of `seam_error`, beside the squared error of pixels
    dither: float = 0.0,  # weight of `dither_error`
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
        if seam:
            kept = kept + seam * seam_error(decoded, clips, patch)
        if dither:
            kept = kept + dither * dither_error(decoded, clips)
        ramp = min(max((step - warmup) / max(warmup, 1), 0.0), 1.0)
        push = _push(contest, fake, kept) if ramp else 0.0
        logits_real, logits_fake = contest.critic(torch.cat([real, fake.detach()])).chunk(2)
        critic = hinge(logits_real, logits_fake)
        return {
            "loss": kept + ramp * adversarial * contest.gain * push + critic,
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


def seam_error(decoded: Tensor, clips: Tensor, patch: int) -> Tensor:
    """Mean squared error of the differences of neighbouring pixels across token borders, of clips (B, 3, T, H, W).

    A token's borders are a thirty-second of all pixel pairs, so the error of pixels hardly sees a step there.
    """
    wrong = decoded - clips
    steps = [wrong.unflatten(axis, (-1, patch)) for axis in (3, 4)]
    across = [(step.select(axis + 1, 0).narrow(axis, 1, step.shape[axis] - 1)
               - step.select(axis + 1, patch - 1).narrow(axis, 0, step.shape[axis] - 1)).square().mean()
              for axis, step in zip((3, 4), steps, strict=True)]  # fmt: skip
    return (across[0] + across[1]) / 2


def dither_error(decoded: Tensor, clips: Tensor) -> Tensor:
    """Mean squared error that repeats from block to block of the decoding net's last pixel shuffle.

    Against the critic the cheapest detail is a dot pattern of the shuffle's period. Averaging the error of nine
    neighbouring blocks, each position in a block for itself, leaves that pattern and little of edges and texture.
    Clips are (B, 3, T, H, W), of three blocks or more.
    """
    by_position = F.pixel_unshuffle(to_frames(decoded - clips), _BLOCK)
    repeated = F.avg_pool2d(by_position, 3, 1).unflatten(1, (-1, _BLOCK**2))
    return (repeated - repeated.mean(2, keepdim=True)).square().mean()


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
