"""Makes a trained VAE's decoder crisp: perceptual and adversarial terms, with encoder and linear path frozen.

A mean square answers doubt with blur. Here the decoder's net is trained on with three terms whose gradients at its last
layer are held at fixed ratios (as in VQGAN, Esser et al. 2021, arXiv 2012.09841): the reconstruction error; the distance
of normalised EfficientNet-lite0 features, in the manner of LPIPS (Zhang et al. 2018, arXiv 1801.03924); and the verdict
of a small patch discriminator that sees three neighbouring frames at once. Latents are disturbed as in the training
before. One of the quality measures uses the same features: it is no independent witness of this stage.

Simplified: the discriminator is not kept; an interrupted run starts again (it takes minutes on a GPU).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mobivid_core.evaluate.image_features import load_backbone
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.models.vae_nets import to_frames
from mobivid_core.training.pool import VideoPool
from mobivid_core.training.vae import EDGE_WEIGHT, LATENT_NOISE, disturbed

#: Blocks of EfficientNet-lite0 whose outputs are compared: from edges to parts of things.
STAGES = (0, 2, 4, 7, 10)
#: Gradient of each term at the decoder's last layer, as a share of the reconstruction's.
PERCEPTUAL_SHARE, ADVERSARIAL_SHARE = 0.7, 0.5
#: The average is given back as it was when it has lost this much PSNR: the discriminator has won.
MOST_LOST_DB = 2.0
_FRAMES = 3  # frames of a clip that the perceptual term looks at, and of a window of the discriminator
_LOG_EVERY = 25


class PatchDiscriminator(nn.Module):
    """Logits (N, 1, H / 8, W / 8) of windows of three frames (N, 9, H, W); high means real."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = (3 * _FRAMES, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1)))

    def forward(self, windows: Tensor) -> Tensor:
        """See the class."""
        return self.layers(windows)


def perceptual_distance(net: nn.Module, ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared distance of channel-normalised features of frames (N, 3, H, W) in [-1, 1], summed over stages."""
    x, total = torch.cat([ours, theirs]), ours.new_zeros(())
    x = net._swish(net._bn0(net._conv_stem(x)))
    for number, block in enumerate(net._blocks[: STAGES[-1] + 1]):
        x = block(x)
        if number in STAGES:
            features = F.normalize(x.float(), dim=1)
            a, b = features.chunk(2)
            total = total + (a - b).square().sum(1).mean()
    return total


def sharpen_decoder(
    vae: MobiVidVAE,
    pool: VideoPool,
    *,
    steps: int,
    seconds: float | None = None,
    device: torch.device | str = "cpu",
    batch: int = 24,
    crop: int = 128,
    frames: int = 17,
    noise: float = LATENT_NOISE,
    rate: float = 3e-4,
    warmup: int = 200,
    shares: tuple[float, float] = (PERCEPTUAL_SHARE, ADVERSARIAL_SHARE),
    bf16: bool = False,
    seed: int = 0,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> tuple[MobiVidVAE, list[dict[str, float]]]:
    """Train the decoder's net on with perceptual and adversarial terms.

    Args:
        vae: Has a decoder net; left untouched.
        pool: Videos, on any device.
        steps: Updates of the decoder at most.
        seconds: Ends the training earlier; the rates follow whichever is further.
        device: Where to train.
        batch: Clips an update.
        crop: Side of a clip in pixels.
        frames: Frames of a clip.
        noise: Standard deviation of the noise on latents, at most, in units of a raw channel.
        rate: Peak rate of the decoder's AdamW; the discriminator's is the same.
        warmup: Updates of the discriminator alone, before.
        shares: Gradient shares of the perceptual and the adversarial term; see `PERCEPTUAL_SHARE`.
        bf16: Compute in bfloat16.
        seed: Seed of all draws.
        on_log: Called with each row of the log.

    Returns:
        (a VAE with the averaged decoder, rows of the log: step, psnr_db, perceptual, adversarial, discriminator,
        real_logit, fake_logit, sharpness (energy of the Laplacian over the real frames'), seconds, and `stopped` with a
        reason in the last row where the run ended early).
    """
    device = torch.device(device)
    vae = copy.deepcopy(vae).to(device).requires_grad_(False)
    net, backbone = vae.decoder_net.requires_grad_(True), copy.deepcopy(load_backbone()).to(device)
    averaged = copy.deepcopy(net).requires_grad_(False)
    torch.manual_seed(seed)
    critic = PatchDiscriminator().to(device)
    optimiser = torch.optim.AdamW(net.parameters(), rate, (0.5, 0.99), weight_decay=0.0)
    judge = torch.optim.AdamW(critic.parameters(), rate, (0.5, 0.99), weight_decay=0.0)
    rows: list[dict[str, float]] = []
    began, best = time.perf_counter(), -math.inf
    for step in range(-warmup, steps):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step + warmup) % 2**63)
        spent = time.perf_counter() - began
        done = max(step / steps, spent / seconds if seconds else 0.0)
        if done >= 1:
            break
        share = min(1.0, (step + 1) / 50) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))))
        for group in optimiser.param_groups:
            group["lr"] = rate * max(share, 0.0)
        clips = pool.draw(batch, frames, crop, generator).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                z = disturbed(vae.encode(clips).latent_dist.mean.float(), noise, generator)
                linear = vae.linear_decoder(z)
            with torch.set_grad_enabled(step >= 0):
                decoded = (linear + net(z, linear)).float()
            start = int(torch.randint(frames - _FRAMES + 1, (1,), generator=generator))
            fake, real = (_window(x, start) for x in (decoded, clips))
            verdicts = critic(real), critic(fake.detach())
        judged = F.relu(1 - verdicts[0].float()).mean() + F.relu(1 + verdicts[1].float()).mean()
        judge.zero_grad(set_to_none=True)
        judged.backward()
        judge.step()
        if step < 0:
            continue
        off = decoded - clips
        error = off.square().mean()
        rebuilt = error + EDGE_WEIGHT * sum(off.diff(dim=axis).abs().mean() for axis in (3, 4))
        chosen = torch.randperm(frames, generator=generator)[:_FRAMES]
        critic.requires_grad_(False)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            seen = (to_frames(x[:, :, chosen]).clamp(-1, 1) for x in (decoded, clips))
            looks = perceptual_distance(backbone, *seen)
            fools = -critic(fake).float().mean()
        critic.requires_grad_(True)
        size = [_gradient(term, net.out.weight) for term in (rebuilt, looks, fools)]
        scale = [part * size[0] / (other + 1e-8) for part, other in zip(shares, size[1:], strict=True)]
        loss = rebuilt + scale[0].clamp(max=1e3) * looks + scale[1].clamp(max=1e3) * fools
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        if bool(torch.isfinite(norm)):
            optimiser.step()
            decay = min(0.999, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(averaged.parameters()), list(net.parameters()), 1 - decay)
        if step % _LOG_EVERY and step != steps - 1:
            continue
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            shown = (linear + averaged(z, linear)).float()
        row = {
            "step": step + 1,
            "psnr_db": float(10 * torch.log10(4 / (shown - clips).square().mean())),
            "perceptual": float(looks.detach()),
            "adversarial": float(fools.detach()),
            "discriminator": float(judged.detach()),
            "real_logit": float(verdicts[0].detach().mean()),
            "fake_logit": float(verdicts[1].detach().mean()),
            "sharpness": float(_edges(shown) / _edges(clips)),
            "seconds": round(time.perf_counter() - began, 2),
        }
        rows.append(row)
        if on_log:
            on_log(row)
        lately = sum(r["psnr_db"] for r in rows[-8:]) / len(rows[-8:])
        best = max(best, lately)
        if not math.isfinite(row["psnr_db"]) or lately < best - MOST_LOST_DB:
            rows[-1]["stopped"] = 1.0  # the discriminator has won: what follows would be worse
            break
    vae.decoder_net.load_state_dict(averaged.state_dict())
    return vae.eval().requires_grad_(True), rows


def _window(clips: Tensor, start: int) -> Tensor:
    """(B, 3, T, H, W) -> (B, 9, H, W): three neighbouring frames as channels."""
    return clips[:, :, start : start + _FRAMES].flatten(1, 2)


def _edges(clips: Tensor) -> Tensor:
    """Mean energy of the spatial Laplacian."""
    x = clips
    inner = x[..., 1:-1, 1:-1]
    around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return (around - 4 * inner).square().mean()


def _gradient(term: Tensor, weight: Tensor | Sequence[Tensor]) -> Tensor:
    """Norm of a term's gradient at a weight."""
    return torch.autograd.grad(term, weight, retain_graph=True)[0].norm().detach()
