"""The state of the shipped models in words: the README's paragraph, written from the tables of notebooks 02 and 05."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mobivid_core.lab.scorecard import how_followed
from mobivid_core.show.headlines import short

QUALITY, SEARCH, SPEED = "distill_quality.csv", "distill_free_search.csv", "distill_speed.csv"
TEACHER_BARS, STUDENT_BARS, MEASURES = "teacher_bars.csv", "distill_bars.csv", "teacher_minivbench.csv"
FAULTS = "teacher_faults.csv"
#: Tables that the paragraph is written from.
FILES = (QUALITY, SEARCH, SPEED, TEACHER_BARS, STUDENT_BARS, MEASURES, FAULTS)


def state(figures: Path) -> str:
    """The paragraph, in Markdown, from a folder with `FILES`."""
    try:
        tables = {name: pd.read_csv(figures / name) for name in FILES}
        parts = [part(tables) for part in (_accuracy, _beside_the_judge, _bars, _speed)]
        told = how_followed("C30").split(": ")[1]
        parts.append(f"Training of the students in the paper's adversarial way so far: {told}; the rest is regression.")
        return " ".join(parts)
    except (FileNotFoundError, LookupError) as error:
        return f"*Results of notebooks 02 and 05 are incomplete ({error}): run both.*"


def _starting(table: pd.DataFrame, column: str, start: str) -> pd.Series:
    """The first row whose `column` starts so."""
    rows = table[table[column].str.startswith(start)]
    if rows.empty:
        raise LookupError(f"no row {start!r}")
    return rows.iloc[0]


def _accuracy(tables: dict[str, pd.DataFrame]) -> str:
    quality, search = tables[QUALITY], tables[SEARCH]
    names = {"real": "real clips", "codec": "VAE", "teacher": "teacher", "pruned": "pruned", "whole": "distilled"}
    rows = {key: _starting(quality, "clips", start) for key, start in names.items()}
    best = {count: part["sampler"].iloc[0] for count, part in search.groupby("allowed")}
    rows |= {count: _starting(quality, "clips", f"teacher, {name}") for count, name in best.items()}
    right = {key: f"{row['all_together']:.2f}" for key, row in rows.items()}
    low, high = (rows["teacher"][f"all_together_{end}"] for end in ("low", "high"))
    free = ", ".join(f"{right[count]} with the best {count}" for count in best)
    return (
        f"For {rows['teacher']['n']} test captions a judge network finds all four attributes right in "
        f"{right['teacher']} of the shipped teacher's clips (95 % Wilson: {low:.2f} to {high:.2f}), in "
        f"{right['pruned']} of the pruned four-step student's and {right['whole']} of the full-size one's. Without "
        f"training, few network evaluations of the teacher reach {free}. Of real clips, whose drawings the judge has "
        f"never seen, {right['real']} are read right, {right['codec']} after the codec."
    )


def _beside_the_judge(tables: dict[str, pd.DataFrame]) -> str:
    motion = tables[MEASURES].set_index("measure").loc["action_flow"]
    codec = _starting(tables[FAULTS], "clips", "reconstructions")
    sharp = _starting(tables[STUDENT_BARS], "measure", "pruned student: energy")
    return (
        f"Motion read from the pixels, without the judge, is right in {motion['teacher']:.2f} of the teacher's clips "
        f"({motion['real clips']:.2f} of real ones). Fine detail is lost: reconstructions have "
        f"{codec['sharpness']:.2f} of the energy of the real clips' Laplacian, the pruned student's clips "
        f"{sharp['value']:.2f}."
    )


def _bars(tables: dict[str, pd.DataFrame]) -> str:
    """How many bars are met, met or missed within chance, and missed; and which are not met."""
    students = tables[STUDENT_BARS]
    who = students["measure"].str.split(": ").str[0]
    parts = {"teacher": tables[TEACHER_BARS], **{name: students[who == name] for name in dict.fromkeys(who)}}
    told, missed = [], []
    for name, rows in parts.items():
        counts = rows["verdict"].str.replace(", within", " within").value_counts().sort_index()
        told.append(f"{name} {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}")
        for row in rows[rows["verdict"].str.startswith("missed")].itertuples():
            measure = row.measure if name in row.measure else f"{name}: {row.measure}"
            missed.append(f"{measure} {short(row.value)} ({row.bar})")
    return f"Bars ('within chance': the interval holds the bar): {'; '.join(told)}. Missed: {'; '.join(missed)}."


def _speed(tables: dict[str, pd.DataFrame]) -> str:
    rows = tables[SPEED][tables[SPEED]["sampler"].str.startswith("pruned")].set_index("batch")
    one, many = rows.loc[rows.index.min()], rows.loc[rows.index.max()]
    whole, equal = "faster, measured", "than the equal"
    return (
        f"In the run of notebook 05, in calls of {rows.index.max()} clips, the pruned student samples "
        f"{many[whole]:.1f} times as fast as the teacher's forty guided steps and {many[equal]:.1f} times as fast as "
        f"its cheapest sampler that is not shown to be worse; one clip a call {one[whole]:.1f} and "
        f"{one[equal]:.1f} times. With decoding these are "
        f"{many['with decoding']:.1f} and {many[f'with decoding, {equal}']:.1f}, and {one['with decoding']:.1f} and "
        f"{one[f'with decoding, {equal}']:.1f}."
    )
