"""Holding the first frame while the others are sampled."""

import pytest
import torch

from mobivid_core.distill.image_to_video import first_frame_table, from_first_frames
from mobivid_core.errors import ParameterError
from mobivid_core.models.sampler import Sampler


class Still(torch.nn.Module):
    """A velocity model that always answers the same."""

    def __init__(self):
        super().__init__()
        self.where = torch.nn.Parameter(torch.zeros(1))  # a model has a device

    def forward(self, x, timestep, text, mask):
        return type("Answer", (), {"sample": torch.ones_like(x)})()


def test_the_first_frame_is_the_given_one_and_the_others_are_sampled():
    images, noise = torch.randn(3, 4, 1, 2, 2), torch.randn(2, 4, 3, 2, 2)
    sample = from_first_frames(Still(), Sampler("euler", 4), images)
    found = sample(["a", "b"], noise)
    torch.testing.assert_close(found[:, :, :1], images[:2])
    torch.testing.assert_close(found[:, :, 1:], noise[:, :, 1:] - 1)  # four steps of .25 at velocity 1
    torch.testing.assert_close(sample(["c"], noise[:1])[:, :, :1], images[2:])  # goes on where it was
    with pytest.raises(ParameterError, match="3 were given|first frames were given"):
        sample(["d"], noise[:1])
    with pytest.raises(ParameterError, match="Euler"):
        from_first_frames(Still(), Sampler("unipc", 4), images)


def test_seam_and_fidelity_are_read_from_the_clips():
    steady = torch.linspace(0, 0.4, 5).view(1, 1, 5, 1, 1).expand(2, 3, 5, 4, 4)
    row = first_frame_table(steady, steady[:, :, 0])
    assert row["jump after it"] == pytest.approx(1.0, abs=1e-4) and row["first-frame PSNR, dB"] > 60
    jump = steady.clone()
    jump[:, :, 1:] += 0.3
    assert first_frame_table(jump, steady[:, :, 0])["jump after it"] == pytest.approx(4.0, abs=1e-3)
    assert first_frame_table(jump, steady[:, :, 0] + 0.2)["first-frame PSNR, dB"] == pytest.approx(20, abs=1e-3)
