"""Every package of the miniature model, from the checkpoints that are shipped, within the gates."""

from pathlib import Path

import pytest

pytest.importorskip("coremltools")
from mobivid_core.coreml import export, verify
from mobivid_core.profiles import get_profile  # noqa: E402


def test_every_shipped_package_passes_the_gates(runs: Path, tmp_path: Path) -> None:
    verified = {g.name: verify.convert_and_verify(g, tmp_path) for g in export.mini_graphs(get_profile("laptop"))}
    assert list(verified) == ["dit", "decoder", "text_encoder"]
    assert all(verification.passed for verification in verified.values())
