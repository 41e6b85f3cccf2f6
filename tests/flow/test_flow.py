"""Flow matching against what it must satisfy exactly."""

import pytest
import torch

from mobivid_core.errors import ParameterError
from mobivid_core.flow import path as flow
from mobivid_core.flow.condition import Condition


def _pair():
    g = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, 1, 2, 2, generator=g), torch.randn(3, 2, 1, 2, 2, generator=g)


def test_the_path_runs_from_data_to_noise():
    x0, noise = _pair()
    assert torch.equal(flow.interpolate(x0, noise, 0.0), x0)
    assert torch.equal(flow.interpolate(x0, noise, 1.0), noise)
    middle = flow.interpolate(x0, noise, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(middle[0], x0[0]) and torch.equal(middle[2], noise[2])
    torch.testing.assert_close(middle[1], (x0[1] + noise[1]) / 2)


def test_velocity_is_the_derivative_of_the_path():
    x0, noise = (x.double() for x in _pair())
    sigma = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    _, slope = torch.func.jvp(lambda s: flow.interpolate(x0, noise, s), (sigma,), (torch.ones_like(sigma),))
    torch.testing.assert_close(slope, flow.velocity(x0, noise))


def test_clean_estimate_inverts_the_path():
    x0, noise = _pair()
    sigma = torch.tensor([0.1, 0.5, 0.9])
    back = flow.clean_estimate(flow.interpolate(x0, noise, sigma), flow.velocity(x0, noise), sigma)
    torch.testing.assert_close(back, x0)  # float32 round-off


def test_logit_normal_times_have_their_known_quantiles():
    sigma = flow.sample_sigmas(20_000, torch.Generator().manual_seed(1))
    assert 0 <= sigma.min() and sigma.max() <= 1
    # The median of sigmoid(N(0, 1)) is 1/2 and its quartiles are sigmoid(+-0.6745); 20,000 draws: 0.01 is 2.5 sigma.
    expected = torch.sigmoid(torch.tensor([-0.6745, 0.0, 0.6745]))
    quantiles = torch.quantile(sigma, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quantiles, expected, atol=0.01, rtol=0)


def test_the_loss_of_the_optimal_predictor_of_a_point_is_zero():
    """Data at a single point: v = (x - x0) / sigma is exact, so the loss vanishes at any time and noise."""
    point = torch.full((1, 2, 1, 2, 2), 0.7)

    def exact(x, timestep, text, mask):
        return (x - point) / (timestep / 1000).view(-1, 1, 1, 1, 1)

    captions = Condition(torch.zeros(64, 3, 5), torch.ones(64, 3).bool())
    loss = flow.flow_loss(
        exact, point.expand(64, -1, -1, -1, -1), captions, torch.Generator().manual_seed(0), drop_text=0
    )
    assert loss < 1e-9  # (x - x0) / sigma loses about 1e-7 / sigma in float32


def test_captions_are_dropped_at_the_asked_rate_and_only_whole():
    text, mask = torch.ones(4000, 4, 3), torch.ones(4000, 4, dtype=torch.bool)
    null_text, null_mask = -torch.ones(1, 2, 3), torch.tensor([[True, False]])
    left = Condition(text, mask, null_text, null_mask).dropped(0.1, torch.Generator().manual_seed(0))
    got, got_mask = left.text, left.mask
    dropped = got[:, 0, 0] < 0
    assert 0.08 < dropped.float().mean() < 0.12  # 4 standard errors of 0.0047
    assert (got[dropped, :2] == -1).all() and (got[dropped, 2:] == 0).all() and (got[~dropped] == 1).all()
    assert got_mask[~dropped].all() and got_mask[dropped].sum(1).eq(1).all()


def test_dropping_without_an_empty_caption_is_refused():
    with pytest.raises(ParameterError, match="null_text"):
        captions = Condition(torch.zeros(1, 1, 1), torch.ones(1, 1))
        flow.flow_loss(lambda *a: a[0], torch.zeros(1, 1, 1, 1, 1), captions, torch.Generator())


def test_an_empty_caption_of_another_encoder_is_refused():
    with pytest.raises(ParameterError, match="same encoder"):
        Condition(torch.zeros(2, 4, 3), torch.ones(2, 4), torch.zeros(1, 4, 5), torch.ones(1, 4)).empty()


def test_captions_are_taken_padded_and_repeated_with_their_empty_ones():
    text, mask = torch.arange(6.0).view(2, 3, 1), torch.ones(2, 3, dtype=torch.bool)
    own = Condition(text, mask, text + 10, mask).repeated(2).padded(4)
    assert own.text[:, 0, 0].tolist() == [0, 0, 3, 3] and own.text.shape == (4, 4, 1) and not own.mask[:, 3].any()
    assert own.empty().text[:, 0, 0].tolist() == [10, 10, 13, 13] and own.take(slice(2, 3)).null_text[0, 0, 0] == 13
    shared = Condition(text, mask, text[:1, :2], mask[:1, :2]).take(torch.tensor([1]))
    assert len(shared) == 1 and shared.empty().text.flatten().tolist() == [0, 1, 0]


def test_a_seed_fixes_the_loss():
    x0, _ = _pair()
    losses = [
        flow.flow_loss(
            lambda x, *rest: x,
            x0,
            Condition(torch.zeros(3, 1, 1), torch.ones(3, 1)),
            torch.Generator().manual_seed(s),
            drop_text=0,
        )
        for s in (5, 5, 6)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_normal_numbers_follow_the_generator_alone() -> None:
    first, again = (flow.normal((2, 3), torch.Generator().manual_seed(4), "cpu") for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first, torch.randn((2, 3), generator=torch.Generator().manual_seed(4)))
    following = torch.Generator().manual_seed(4)
    flow.normal((2, 3), following, "cpu")
    assert not torch.equal(flow.normal((2, 3), following, "cpu"), first), "the stream moves on"
