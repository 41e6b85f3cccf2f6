import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mobivid_core.data.captions import TRAIN_WORDINGS, VOCABULARY, WORDINGS, label_indices
from mobivid_core.data.render import label_of, render_clips
from mobivid_core.errors import ParameterError
from mobivid_core.measure import diversity, reference
from mobivid_core.measure.generalisation import (
    PROBED,
    PROBED_TRAINED,
    PROBED_UNSEEN,
    paraphrases,
    readable_share,
    unseen_gap,
    wording_gap,
)
from mobivid_core.measure.generation import Evaluator
from mobivid_core.measure.judge import Judge
from mobivid_core.measure.minivbench import SPACES
from mobivid_core.measure.reference import REFERENCE_START
from mobivid_core.profiles import get_profile

PROFILE = get_profile("smoke")


@pytest.fixture(scope="module")
def evaluator(linear_evaluator) -> Evaluator:
    return linear_evaluator()


def _perfect(evaluator: Evaluator):
    """A sampler that returns the encodings of the very clips that the captions were written for."""
    clips = render_clips("test", range(PROFILE.eval_clips), frames=PROFILE.frames, size=PROFILE.size)
    with torch.no_grad():
        latents = dict(zip(clips.captions, evaluator.vae.encode_latents(clips.clips), strict=True))
    return lambda captions, noise: torch.stack([latents[c] for c in captions])


def test_a_perfect_sampler_scores_as_the_reconstructions(evaluator: Evaluator) -> None:
    result = evaluator.evaluate_sampler(_perfect(evaluator), n=PROFILE.eval_clips, batch=3, keep=2, progress=False)
    expected = evaluator.rows()["VAE reconstructions"]
    assert result.clips.shape == (2, 3, PROFILE.frames, PROFILE.size, PROFILE.size)
    for name in ("total", "semantic", "frechet_real"):
        assert result.scores[name] == pytest.approx(expected[name], rel=1e-3)  # batches of 3 and 16 round differently


def test_reference_clips_are_not_the_evaluated_ones(evaluator: Evaluator) -> None:
    assert REFERENCE_START > 10 * 10_000
    assert not torch.equal(evaluator.reference.real, evaluator.real.features)


def test_measured_references_are_reused(evaluator: Evaluator) -> None:
    again = Evaluator.prepare(evaluator.vae, evaluator.judge, PROFILE, progress=False)
    assert torch.equal(again.real.features, evaluator.real.features)
    assert torch.equal(again.reference.reconstruction, evaluator.reference.reconstruction)


def test_validation_captions_have_their_own_clips(evaluator: Evaluator) -> None:
    other = Evaluator.prepare(evaluator.vae, evaluator.judge, PROFILE, n=4, split="val", progress=False)
    assert other.labels == [label_of("val", i) for i in range(4)]
    assert not torch.equal(other.real.features, evaluator.real.features[:4])
    assert other.reference.space == evaluator.reference.space


def test_headline_distances_are_measured_without_being_asked_for(evaluator: Evaluator) -> None:
    """An evaluation has the features of the trusted space, whichever it is."""
    for name, space in SPACES.items():
        wanted = dataclasses.replace(evaluator, reference=dataclasses.replace(evaluator.reference, space=space))
        found = wanted.evaluate_sampler(_perfect(evaluator), n=4, keep=0, quality=False, progress=False)
        assert (found.measures.image_features is not None) == (name == "image")
        assert space.real in found.scores.values


def test_noise_is_a_function_of_seed_and_index(evaluator: Evaluator) -> None:
    together, alone = evaluator.noise(range(4)), evaluator.noise([2])
    assert torch.equal(together[2], alone[0])
    assert not torch.equal(evaluator.noise([2], seed=1), alone)


def test_the_unseen_gap_is_the_difference_of_both_halves(evaluator: Evaluator) -> None:
    result = evaluator.evaluate_sampler(_perfect(evaluator), n=8, progress=False)
    unseen = torch.tensor([label_of("test", i).unseen for i in range(8)])
    truth = label_indices(result.labels).clone()
    truth[unseen, 0] = (truth[unseen, 0] + 1) % len(VOCABULARY["shape"])  # every held-out caption gets a wrong shape
    wrong = dataclasses.replace(result, measures=dataclasses.replace(result.measures, classes=truth))
    right = dataclasses.replace(result.measures, classes=label_indices(result.labels))
    gap, same = unseen_gap(wrong), unseen_gap(dataclasses.replace(result, measures=right))
    assert gap.value == 1 == gap.high and 0 < gap.low < 1
    assert same.value == 0 and same.low < 0 < same.high  # eight clips do not exclude a gap
    one_kind = dataclasses.replace(wrong, labels=wrong.labels[1:2], measures=wrong.measures[1:2])
    with pytest.raises(ParameterError, match="both trained and held-out"):
        unseen_gap(one_kind)


def test_captions_can_be_worded_otherwise(evaluator: Evaluator) -> None:
    spoken: list[str] = []

    def sampler(captions, noise: torch.Tensor) -> torch.Tensor:
        spoken.extend(captions)
        return noise

    evaluator.evaluate_sampler(sampler, n=2, wording=WORDINGS - 1, progress=False)
    assert len(spoken) == 2 and all(words.startswith("look, the ") for words in spoken)


class _Still(torch.nn.Module):
    """A 'model' whose velocity carries any noise to the same latents: a fully collapsed generator."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return x / (timestep / 1000).view(-1, 1, 1, 1, 1)  # straight to zero


def test_a_collapsed_generator_has_no_diversity(evaluator: Evaluator) -> None:
    found = evaluator.diversity(_Still(), captions=2, repeats=3, steps=2, guidance=1.0)
    assert found.real.mean() > 0.1
    assert found.ratio.value < 1e-2  # float32 division leaves a trace of the noise
    assert found.ratio.low <= found.ratio.value <= found.ratio.high and found.ratio.n == 2
    real = dataclasses.replace(found, generated=found.real)
    assert real.over(real).value == real.ratio.value == 1 and found.over(real) == found.ratio


def test_real_clips_are_as_diverse_as_real_clips(judge: Judge) -> None:
    """A 'generator' that draws other real clips of the same caption is at 1, within what six captions allow."""

    def draw(words, numbers):
        asked = dataclasses.replace(label_of("test", groups[numbers[0] // 10_000 - 1][0]), wording=0)
        others = (i for i in range(20_000, 60_000) if dataclasses.replace(label_of("test", i), wording=0) == asked)
        return render_clips("test", [next(others) for _ in words], size=64).clips

    groups = diversity.repeated_labels(6, 3)
    codec = SimpleNamespace(encode_latents=lambda clips: clips, device="cpu")
    evaluator = SimpleNamespace(
        vae=codec, judge=judge, profile=SimpleNamespace(frames=17, size=64), noise=lambda numbers, seed: numbers,
        decode=lambda clips: clips,
    )  # fmt: skip
    found = diversity.caption_diversity(evaluator, draw, 6, 3, 0)
    assert found.ratio.value == pytest.approx(1, abs=0.35)


def _with_classes(evaluator: Evaluator, change: torch.Tensor):
    """An evaluation of 4 clips, read back as their captions ask but for `change` (4,) added to the shape."""
    run = evaluator.evaluate_sampler(_perfect(evaluator), n=4, progress=False)
    truth = label_indices(run.labels)
    truth[:, 0] = (truth[:, 0] + change) % len(VOCABULARY["shape"])
    return dataclasses.replace(run, measures=dataclasses.replace(run.measures, classes=truth))


def test_paraphrases_compare_clip_by_clip(evaluator: Evaluator) -> None:
    right, wrong = (_with_classes(evaluator, torch.full((4,), k)) for k in (0, 1))
    frame = paraphrases([right] * (len(PROBED) - 1) + [wrong], [1.0] * len(PROBED))
    assert frame.all_together.tolist() == [1.0] * (len(PROBED) - 1) + [0.0]
    assert frame.change.tolist() == [0.0] * (len(PROBED) - 1) + [-1.0]
    assert frame.trained.tolist() == ["yes"] * len(PROBED_TRAINED) + ["no"] * len(PROBED_UNSEEN)
    assert frame.example.nunique() == len(PROBED)
    with pytest.raises(ParameterError, match=f"{len(PROBED)} probed wordings; got 1"):
        paraphrases([right], [1.0])
    with pytest.raises(ParameterError, match="one share for each"):
        paraphrases([right] * len(PROBED), [1.0])


def test_the_wording_gap_is_paired_over_clips(evaluator: Evaluator) -> None:
    right, half = _with_classes(evaluator, torch.zeros(4, dtype=torch.long)), torch.tensor([0, 1, 0, 1])
    some, every = _with_classes(evaluator, half), _with_classes(evaluator, torch.ones(4, dtype=torch.long))
    known, held = [right] * len(PROBED_TRAINED), len(PROBED_UNSEEN)
    assert wording_gap(known + [every] * held).value == 1  # every clip differs by one
    value, low, high = wording_gap(known + [some] * held)
    assert value == 0.5 and low < value < high <= 1
    # clips that fail in every wording are hard clips, not hard wordings: a pairwise difference leaves them out
    assert wording_gap([some] * len(PROBED)).value == 0
    other = dataclasses.replace(right, labels=right.labels[::-1])
    with pytest.raises(ParameterError, match="different captions"):
        wording_gap([right] * (len(PROBED) - 1) + [other])


def test_probed_wordings_are_of_both_kinds() -> None:
    assert all(w < TRAIN_WORDINGS for w in PROBED_TRAINED)
    assert all(TRAIN_WORDINGS <= w < WORDINGS for w in PROBED_UNSEEN)


def test_the_encoder_reads_trained_wordings_best() -> None:
    """A linear reading fitted on the trained wordings reads those; the unseen ones it may read worse, not better."""
    trained, unseen = (min(readable_share(w, 64) for w in part) for part in (PROBED_TRAINED, PROBED_UNSEEN))
    assert trained > 0.95 and unseen <= trained


def test_asking_for_more_captions_than_prepared_is_refused(evaluator: Evaluator) -> None:
    with pytest.raises(ParameterError, match="prepared with 8"):
        evaluator.evaluate(_Still(), n=9)


def test_running_out_of_repeated_captions_is_said(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "_LABELS_SCANNED", 20)
    with pytest.raises(ParameterError, match="fewer captions or repeats"):
        evaluator.diversity(_Still(), captions=2, repeats=5)


def test_cache_is_keyed_by_the_judge(evaluator: Evaluator, judge: Judge, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MOBIVID_RUNS", str(tmp_path))
    for model in (judge, Judge(width=4)):
        Evaluator.prepare(evaluator.vae, model, PROFILE, n=4, progress=False)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_a_large_evaluation_is_kept_and_taken_up_again(evaluator: Evaluator, tmp_path: Path, monkeypatch) -> None:
    """The second call finds the file and does not sample; another seed, model or torn file samples anew."""
    monkeypatch.setenv("MOBIVID_RUNS", str(tmp_path))
    monkeypatch.setattr(reference, "FROM_CLIPS", 4)
    ask = dict(n=4, steps=2, keep=2, independent=True, progress=False)
    first = evaluator.evaluate(_Still(), **ask)
    (file,) = tmp_path.rglob("generated-*.safetensors")
    monkeypatch.setattr(Evaluator, "_measured", lambda *_: pytest.fail("sampled again"))
    again = evaluator.evaluate(_Still(), **ask)
    assert again.scores.values == first.scores.values and torch.equal(again.clips, first.clips)
    assert evaluator.evaluate(_Still(), **{**ask, "independent": False}).seconds_per_clip == first.seconds_per_clip
    for other in ({"seed": 1}, {"steps": 3}, {"solver": "unipc"}, {"quality": False}):
        with pytest.raises(pytest.fail.Exception):
            evaluator.evaluate(_Still(), **(ask | other))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(pytest.fail.Exception):
        evaluator.evaluate(_Still(), **ask)
