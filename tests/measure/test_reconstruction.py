"""Reconstruction measures: exact answers on made-up errors, and a causal VAE seen from outside."""

import math

import pandas as pd
import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.measure.reconstruction import (
    at_speed,
    by_speeds,
    decoder_response,
    encoder_response,
    equal_channels,
    masked_psnr,
    measure,
    motion_amount,
    reconstruct,
    summarise,
)
from mobivid_core.models.vae import MobiVidVAE


def ramp(number: int = 2, frames: int = 9, size: int = 32) -> torch.Tensor:
    """Clips whose frame t is the constant -0.5 + t / 16: (N, 3, T, H, W)."""
    return (-0.5 + torch.arange(frames) / 16).view(1, 1, frames, 1, 1).expand(number, 3, frames, size, size).clone()


@pytest.fixture(scope="module")
def vae() -> MobiVidVAE:
    """Linear path fitted on noise, nets switched on by random weights in their zero layers."""
    torch.manual_seed(0)
    vae = MobiVidVAE(ratio=(4, 8, 8), latent_channels=4, width=8)
    vae.fit_linear(torch.randn(4, 3, 9, 16, 16).clamp(-1, 1))
    for parameter in vae.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.05)
    return vae.eval()


def test_psnr_of_a_known_error():
    clips = ramp()
    table = measure(clips + 0.1, clips)
    # Error 0.1 of a peak-to-peak 2: 20 log10(2 / 0.1) = 26.02 dB; a constant error moves nothing.
    assert table.psnr_db.tolist() == pytest.approx([26.0206] * 2, abs=1e-3)
    assert table.motion_error.tolist() == pytest.approx([0, 0], abs=1e-6)


def test_masked_psnr_sees_only_the_mask():
    clips = ramp(1)
    wrong = clips.clone()
    wrong[..., :16] += 0.2
    left = torch.zeros(1, 9, 32, 32, dtype=torch.bool)
    left[..., :16] = True
    assert masked_psnr(wrong, clips, left).item() == pytest.approx(20, abs=1e-3)  # 20 log10(2 / 0.2)
    assert math.isinf(masked_psnr(wrong, clips, ~left).item())
    assert math.isnan(masked_psnr(wrong, clips, torch.zeros_like(left)).item())


def test_speed_scales_motion_and_keeps_the_middle():
    clips = ramp(frames=33)
    middle = clips[:, :, 16]
    amounts = []
    for speed in (0, 1, 2, 4):
        played = at_speed(clips, speed, frames=9)
        assert torch.equal(played[:, :, 4], middle)
        amounts.append(motion_amount(played)[0].item())
    assert amounts == pytest.approx([0, 1 / 16, 2 / 16, 4 / 16], abs=1e-6)
    with pytest.raises(ParameterError, match="needs clips of 41 frames, got 33"):
        at_speed(clips, 5, frames=9)


def test_equal_channels_keep_floats_per_pixel():
    assert [equal_channels(r) for r in ((4, 8, 8), (4, 16, 16), (8, 16, 16), (4, 32, 32), (8, 32, 32))] == [
        2,
        8,
        16,
        32,
        64,
    ]
    assert equal_channels((4, 8, 8), channels=8) == 1


def test_summary_brackets_the_mean():
    table = summarise({"a": pd.DataFrame({"psnr_db": [20.0, 22.0, 24.0]})})
    assert table.loc[0, "psnr_db"] == 22 and table.loc[0, "clips"] == 3
    assert 20 <= table.loc[0, "psnr_db_low"] <= 22 <= table.loc[0, "psnr_db_high"] <= 24


def test_responses_are_causal(vae):
    clip = torch.rand(1, 3, 9, 16, 16, generator=torch.Generator().manual_seed(1)) - 0.5
    encoded = encoder_response(vae, clip)  # (9, 3): frames 0 | 1 to 4 | 5 to 8
    first = [0, 1, 1, 1, 1, 2, 2, 2, 2]
    for frame, step in enumerate(first):
        assert encoded[frame, :step].abs().sum() == 0  # exactly: nothing of the frame enters the sum
        assert encoded[frame, step] > 0
    decoded = decoder_response(vae, vae.encode_latents(clip).detach())
    for step, frame in enumerate((0, 1, 5)):
        assert decoded[step, :frame].abs().sum() == 0 and (decoded[step, frame:] > 0).any()


def test_reconstruction_does_not_depend_on_the_batch(vae):
    clips = torch.rand(3, 3, 9, 16, 16, generator=torch.Generator().manual_seed(2)) - 0.5
    # float32 sums in another order
    assert torch.allclose(reconstruct(vae, clips, batch=3), reconstruct(vae, clips, batch=1), atol=1e-4)


def test_speeds_measure_the_same_moments(vae: MobiVidVAE) -> None:
    found = by_speeds(vae, ramp(frames=17, size=16), frames=9, speeds=(0, 1, 2))
    change = {name: own.change_per_frame.tolist() for name, own in found.items()}
    assert list(found) == ["0x", "1x", "2x"] and [len(own) for own in found.values()] == [2, 2, 2]
    assert change["0x"] == [0, 0] and change["2x"] == pytest.approx([2 * c for c in change["1x"]], rel=1e-5)
