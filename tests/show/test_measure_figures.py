import dataclasses

import pandas as pd
import torch

from mobivid_core.data.captions import caption, label_indices
from mobivid_core.data.render import label_of
from mobivid_core.measure.generation import Evaluation
from mobivid_core.measure.measures import ClipMeasures
from mobivid_core.measure.minivbench import SPACES, Scores
from mobivid_core.show.measure_figures import clip_titles, few_steps_curves
from mobivid_core.show.teacher_results import damage_figure, steps_figure

LABELS = [label_of("test", i) for i in range(4)]


def test_titles_say_what_was_asked_and_what_is_wrong() -> None:
    seen = label_indices(LABELS)
    seen[1, [0, 2]] = (seen[1, [0, 2]] + 1) % 8
    measures = ClipMeasures(seen, torch.zeros(4, 2), torch.zeros(4, 3), *[torch.ones(4)] * 6)
    run = Evaluation(Scores({}, 4), measures, LABELS, torch.zeros(3, 3, 2, 4, 4), 0.0, 0.0)
    titles = clip_titles(run)
    assert len(titles) == 3  # of the clips that were kept
    assert titles[0] == f"{caption(LABELS[0])} | judge: right"
    assert titles[1] == f"{caption(LABELS[1])} | held out | judge: wrong shape, motion"
    assert dataclasses.replace(run, clips=run.clips[:0]) and not clip_titles(
        dataclasses.replace(run, clips=run.clips[:0])
    )


def test_the_map_frames_what_had_to_move() -> None:
    frame = pd.DataFrame(
        [("blur", "a", -3.0, "falls", "True"), ("blur", "b", 0.1, "rises", "False"), ("noise", "a", 0.0, "", ""),
         ("noise", "b", 30.0, "rises", "True")],
        columns=["damage", "measure", "in_noise", "expected", "seen"],
    )  # fmt: skip
    ax = damage_figure(frame).fig.axes[0]
    assert [box.get_linestyle() for box in ax.patches] == ["-", ":", "-"]
    assert [text.get_text() for text in ax.texts] == ["-3", "", "", "+30"]


def test_each_solver_is_a_line_in_each_panel() -> None:
    shares = {name: [0.5, 0.6, 0.7] for name in ("all_together", "all_together_low", "all_together_high")}
    distance = {f"distance{end}": [3.0, 2.0, 1.0] for end in ("", "_low", "_high")}
    frame = pd.DataFrame(
        {"solver": ["euler", "euler", "unipc"], "steps": [4, 8, 8], "calls": [4, 8, 8], "n": 32, "guidance": 3.0,
         "seconds_per_clip": [0.1, 0.2, 0.2]}
    )  # fmt: skip
    fig = steps_figure(frame.assign(**shares, **distance), 0.5, SPACES["judge"], "3").fig
    assert [len(ax.lines) for ax in fig.axes] == [2, 3, 2]  # and the floor


def test_few_steps_are_drawn_with_and_without_guidance() -> None:
    values = {f"{name}{end}": [3.0, 2.0, 1.0] for name in ("all_together", "far") for end in ("", "_low", "_high")}
    frame = pd.DataFrame({"steps": [40, 4, 4], "guided": ["yes", "no", "yes"], **values})
    fig = few_steps_curves(frame, "far")
    assert [len(ax.containers) for ax in fig.axes] == [2, 2]
    assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()] == [
        "40 steps, guided",
        "unguided",
        "guided",
    ]
