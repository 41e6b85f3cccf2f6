import pandas as pd
import torch

from mobivid_core.data.render import label_of, render_clips
from mobivid_core.measure.curve import CURVE, Point, fewest_steps, trace
from mobivid_core.measure.generation import Evaluator
from mobivid_core.measure.judge import Judge
from mobivid_core.measure.measures import measure
from mobivid_core.measure.minivbench import Reference
from mobivid_core.measure.quality import ImagingReference
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import get_profile

PROFILE = get_profile("smoke")


class _Counting(torch.nn.Module):
    """Counts the clips that pass through it."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor, self.seen = torch.nn.Parameter(torch.zeros(())), 0

    def forward(self, x, timestep, text, mask):
        self.seen += len(x)
        return torch.zeros_like(x)


def _evaluator() -> Evaluator:
    torch.manual_seed(0)
    judge = Judge(width=4).eval()
    vae = MobiVidVAE(PROFILE.vae_ratio, PROFILE.vae_channels, width=0).eval()
    clips = render_clips("test", range(4), frames=PROFILE.frames, size=PROFILE.size).clips
    vae.fit_statistics(clips)
    measures = measure(clips, judge)
    reference = Reference(ImagingReference.fit(measures.imaging), measures.features, measures.features)
    labels = [label_of("test", i) for i in range(4)]
    return Evaluator(vae, judge, PROFILE, reference, measures, measures, labels)


def test_calls_are_what_the_model_sees() -> None:
    evaluator, model = _evaluator(), _Counting()
    points = [Point("euler", 2, 1.0), Point("unipc", 3, 3.0)]
    frame = trace(evaluator, model, points, n=4)
    assert frame.calls.tolist() == [2, 6] and model.seen == 4 * (2 + 6)
    assert frame.solver.tolist() == ["euler", "unipc"] and set(CURVE) <= set(frame)
    assert (frame.n == 4).all() and (frame.seconds_per_clip > 0).all()


def test_known_points_are_not_sampled_again() -> None:
    evaluator, model = _evaluator(), _Counting()
    point = Point("euler", 2, 1.0)
    run = evaluator.evaluate(model, n=4, steps=2, guidance=1.0, progress=False)
    before = model.seen
    frame = trace(evaluator, model, [point], n=2, known={point: run})
    assert model.seen == before and frame.n.tolist() == [2]
    assert frame.seconds_per_clip[0] == run.seconds_per_clip


def test_the_fewest_calls_within_reach_of_the_best() -> None:
    rows = [("euler", 40, 3.0, 80, 0.90, 0.95), ("unipc", 8, 3.0, 16, 0.86, 0.91), ("euler", 8, 3.0, 16, 0.85, 0.92)]
    rows.append(("euler", 4, 3.0, 8, 0.60, 0.70))
    names = ["solver", "steps", "guidance", "calls", "all_together", "all_together_high"]
    assert fewest_steps(pd.DataFrame(rows, columns=names)) == Point("unipc", 8, 3.0)
