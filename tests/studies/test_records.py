"""A record's numbers become headlines only for the teacher that they were made with."""

import pytest

from mobivid_core.errors import CheckpointError
from mobivid_core.measure.intervals import share
from mobivid_core.studies import records


def test_a_record_of_another_teacher_gives_no_number(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("trial\nx\n")
    (tmp_path / "a.json").write_text('{"teacher": "abc"}')
    monkeypatch.setattr(records, "record_folder", lambda: tmp_path)
    value = share(3, 4)
    monkeypatch.setattr(records, "teacher_hash", lambda profile: {"laptop": "abc"}.get(profile, "xyz"))
    assert records.current("a", "laptop", value) is value
    assert records.current("a", "smoke", value) is None
    with pytest.raises(CheckpointError, match="no readable record"):
        records.current("b", "laptop", value)
