import pandas as pd
import pytest
import torch

from mobivid_core.distill.baselines import baselines, euler_samplers, few_steps_finding, grid_table
from mobivid_core.distill.trajectory import student_sigmas
from mobivid_core.errors import ParameterError
from mobivid_core.flow.guidance import Guidance
from mobivid_core.flow.sampling import shift_sigmas
from mobivid_core.models.sampler import Sampler, default_grid


def test_default_grid_wastes_its_last_step():
    """The trap itself: should diffusers mend its grid, this test says so (three decimals: the library rounds)."""
    assert default_grid(4).tolist() == pytest.approx([1.0, 0.667, 0.334, 0.001, 0.0], abs=1e-3)


def test_default_grid_shifts_its_lower_end_twice():
    """Smallest noise level .001 -> .003 (when the scheduler is made) -> .009 (when the steps are set)."""
    twice = shift_sigmas(shift_sigmas(torch.tensor(0.001), 3.0), 3.0)
    assert default_grid(4, 3.0)[3].item() == pytest.approx(twice.item(), rel=1e-3)


def test_shift_keeps_the_ends_and_inverts():
    sigmas = student_sigmas(8)
    shifted = shift_sigmas(sigmas, 3.0)
    assert shifted[0] == 1 and shifted[-1] == 0 and (shifted[1:-1] > sigmas[1:-1]).all()
    torch.testing.assert_close(shift_sigmas(shifted, 1 / 3), sigmas)


def test_grid_table_shows_the_wasted_step():
    table = grid_table(4).set_index("grid")["last step covers"]
    assert table["textbook"] == 0.25 and table["diffusers default call"] < 0.002


def test_names_and_evaluations():
    assert Sampler("unipc", 4, 3.0).name == "UniPC-4, guided" and Sampler("unipc", 4, 3.0).evaluations == 8
    assert Sampler("euler", 4).evaluations == 4
    limited = Sampler("euler", 4, Guidance(3.0, 0.25, 0.75), shows_scale=True)
    assert limited.evaluations == 6 and limited.name == "Euler-4, guidance 3 at sigma 0.25 to 0.75"
    names = [s.name for s in (*euler_samplers(3.0), *baselines(3.0))]
    assert len(set(names)) == len(names) - 1  # guided Euler-4 is in both lists


def test_samplers_refuse_what_they_do_not_have():
    with pytest.raises(ParameterError, match="unknown grid"):
        Sampler("euler", 4, grid="cosine")
    with pytest.raises(ParameterError, match="only the Euler solver"):
        Sampler("unipc", 4, grid="diffusers default")


def test_all_samplers_agree_with_many_steps(teacher, condition):
    """Different solvers and grids of one ordinary differential equation: the same sample, to the first-order error."""
    noise = torch.randn(12, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    fine = Sampler("euler", 100, 1.5).sample(teacher, condition, noise)
    scale = (fine - noise).square().mean()
    for sampler in (
        Sampler("euler", 40, 1.5), Sampler("unipc", 20, 1.5), Sampler("dpm++", 20, 1.5),
        Sampler("euler", 40, 1.5, "diffusers default"), Sampler("euler", 40, 1.5, shift=3.0),
        Sampler("unipc", 24, 1.5, shift=1.5), Sampler("dpm++", 24, 1.5, shift=1.5),
    ):  # fmt: skip
        error = (sampler.sample(teacher, condition, noise, batch=5) - fine).square().mean()
        assert error < 1e-2 * scale, sampler.name


def test_the_finding_on_few_steps_reads_its_table():
    names = ["Euler-40, guided", "Euler-1, unguided", "Euler-4, unguided", "Euler-4, guided"]
    frame = pd.DataFrame(
        {"clips": names, "n": 32, "all_together": [0.9, 0.1, 0.2, 0.8], "action": [1.0, 0.7, 0.9, 1.0]}
    )
    told = few_steps_finding(frame)
    assert "20% of clips in four unguided steps, 80% in four guided ones, 90% in full; motion in 70%" in told
    assert "32 clips" in told
