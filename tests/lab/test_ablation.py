"""Eight combinations of compression, pruning and distillation."""

import pandas as pd
import pytest

from mobivid_core.lab.paper_ablation import stacked_costs, stacked_told, with_quality
from mobivid_core.phone.devices import find_device


@pytest.fixture(scope="module")
def costs() -> pd.DataFrame:
    return stacked_costs(find_device("A18 Pro"))


def row(costs, *flags):
    return costs[(costs[["compressed", "pruned", "distilled"]] == list(flags)).all(axis=1)].iloc[0]


def test_every_combination_once_and_each_step_is_cheaper(costs):
    assert len(costs) == 8 and not costs.duplicated(["compressed", "pruned", "distilled"]).any()
    nothing, everything = row(costs, False, False, False), row(costs, True, True, True)
    assert nothing["cheaper"] == 1 and costs["cheaper"].idxmax() == everything.name
    for alone in ((True, False, False), (False, True, False), (False, False, True)):
        assert 1 < row(costs, *alone)["cheaper"] < everything["cheaper"]


def test_known_counts(costs):
    """Forty guided steps are eighty passes, four unguided ones four; 13 x 24 x 32 and 7 x 12 x 16 tokens."""
    assert row(costs, False, False, True)["cheaper"] == pytest.approx(20)
    assert set(costs["tokens"]) == {13 * 24 * 32, 7 * 12 * 16}
    assert row(costs, True, True, True)["parameters (B)"] == pytest.approx(0.96, abs=0.01)


def test_quality_stands_only_beside_what_was_trained(costs):
    stacking = pd.DataFrame(
        [
            (False, False, "Euler-40, guided", 1.0, 1.0),
            (False, False, "Euler-4, unguided", 0.1, 5.0),
            (False, True, "Euler-4, unguided", 0.8, 1.3),
            (True, False, "Euler-40, guided", 0.9, 1.1),
            (True, True, "Euler-4, unguided", 0.7, 1.5),
        ],
        columns=["pruned", "distilled", "sampler", "accuracy / teacher", "Frechet / teacher"],
    )
    for name in ("accuracy", "Frechet"):
        stacking[f"{name} low"], stacking[f"{name} high"] = (stacking[f"{name} / teacher"] * f for f in (0.9, 1.1))
    table = with_quality(costs, stacking)
    assert len(table) == 8 and table["accuracy / teacher (miniature)"].notna().sum() == 4
    assert row(table, True, True, True)["accuracy / teacher (miniature)"] == 0.7
    assert row(table, True, False, False)["Frechet / teacher (miniature)"] == 1.0
    assert table.loc[~table["compressed"], "Frechet / teacher (miniature)"].isna().all()
    told = stacked_told(table, "Source.")
    assert "the stack keeps 0.700 [0.630, 0.770]" in told and told.endswith("Source.")
