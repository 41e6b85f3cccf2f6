"""What every test shares: no network, no display, results kept out of the checkout."""

from __future__ import annotations

import os
import socket
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported by any test
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

_LOCAL = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be fetched; notebook kernels still talk to the runner on this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _LOCAL:
            raise OSError(f"the network is off in tests: something tried to reach {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture()
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runs folder of this test's own, seen by the kernels it starts as well."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("MOBIVID_RUNS", str(folder))
    return folder


@pytest.fixture(scope="session")
def judge():
    """The shipped judge."""
    from mobivid_core.artifacts import load_model
    from mobivid_core.measure.judge import Judge
    from mobivid_core.paths import checkpoints_dir

    return load_model(Judge, checkpoints_dir() / "judge").eval()


@pytest.fixture(scope="module")
def linear_evaluator(judge, tmp_path_factory: pytest.TempPathFactory):
    """Makes evaluators at smoke sizes with a linear codec and the shipped judge; arguments as `Evaluator.prepare`."""
    from mobivid_core.data.render import render_clips
    from mobivid_core.measure.generation import Evaluator
    from mobivid_core.models.vae import MobiVidVAE
    from mobivid_core.profiles import get_profile

    profile = get_profile("smoke")
    vae = MobiVidVAE(profile.vae_ratio, 128, width=0)  # as many channels as the judge needs to see shapes
    clips = render_clips("train", range(64), frames=profile.frames, size=profile.size).clips
    vae.fit_linear(clips)
    vae.fit_statistics(clips)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBIVID_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield lambda **given: Evaluator.prepare(vae, judge, profile, progress=False, **given)


class Recalling(torch.nn.Module):
    """Walks straight to `gain` times the latents of the caption's own clip: guidance 1 / gain makes up for it exactly.

    Args:
        latents: {key of the caption's states: (C, t, h, w)}; without a caption it walks to zero.
        gain: See above.
    """

    def __init__(self, latents: dict[tuple, torch.Tensor], gain: float) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))  # tells the device
        self.latents, self.gain = latents, gain

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The velocity, as a diffusion transformer gives it."""
        sigma, zero = (timestep / 1000).view(-1, 1, 1, 1, 1), torch.zeros_like(x[0])
        goals = torch.stack([self.latents.get(self.key(t, m), zero) for t, m in zip(text, mask, strict=True)])
        return (x - self.gain * goals) / sigma

    @staticmethod
    def key(text: torch.Tensor, mask: torch.Tensor) -> tuple:
        """What tells captions apart in their states (L, D)."""
        return tuple(text[mask].sum(0)[:4].mul(100).round().int().tolist())


@pytest.fixture(scope="session")
def recalling():
    """Makes a `Recalling` of an evaluator's first `n` validation clips."""
    from mobivid_core.data.render import render_clips
    from mobivid_core.models.text import encode_text

    def make(evaluator, n: int, gain: float) -> Recalling:
        profile = evaluator.profile
        drawn = render_clips("val", range(n), frames=profile.frames, size=profile.size)
        with torch.no_grad():
            latents = evaluator.vae.encode_latents(drawn.clips)
        return Recalling(dict(zip(map(Recalling.key, *encode_text(drawn.captions)), latents, strict=True)), gain)

    return make


@pytest.fixture(scope="session")
def teacher():
    """Four blocks of unequal widths with random weights everywhere (the initial ones make cross-attention zero)."""
    from mobivid_core.models.config import DiTConfig
    from mobivid_core.models.dit import MobiVidTransformer3DModel

    sizes = DiTConfig(24, 6, (4, 3, 4, 4), (4, 4, 2, 4), (32, 24, 32, 32), in_channels=4, text_dim=10)
    torch.manual_seed(0)
    model = MobiVidTransformer3DModel.from_sizes(sizes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.5 if "scale_shift_table" in name else parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn_like(parameter) * scale + (1 if "norm_" in name else 0))
    return model.eval()


@pytest.fixture(scope="session")
def calibration():
    """48 samples of 2 x 2 x 2 latents."""
    from mobivid_core.sensitivity.calibration import calibration_set

    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(48, 4, 2, 2, 2, generator=generator)
    text = torch.randn(48, 5, 10, generator=generator)
    mask = torch.arange(5)[None] < torch.randint(1, 6, (48, 1), generator=generator)
    null = (torch.zeros(1, 5, 10), torch.arange(5)[None] < 1)
    return calibration_set(latents, text, mask, seed=2, null=null)


@pytest.fixture(scope="session")
def real():
    """Real clips of captions that no generator was trained on."""
    from mobivid_core.data.render import render_clips

    return render_clips("test", range(32), size=64)


@pytest.fixture(scope="session")
def others():
    """More real clips, for references."""
    from mobivid_core.data.render import render_clips

    return render_clips("test", range(1000, 1048), size=64)
