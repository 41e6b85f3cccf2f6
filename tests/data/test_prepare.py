"""The recipe of the shipped inputs, on made-up sources, and the shipped inputs themselves."""

import csv
import gzip
import json

import numpy as np
import pytest
from PIL import Image

from mobivid_core.data import prepare
from mobivid_core.data.film import film_shots
from mobivid_core.data.video_io import read_video, write_video
from mobivid_core.errors import ParameterError
from mobivid_core.paths import data_dir


def test_shipped_splits_follow_the_rule():
    shots = film_shots()
    for shot in shots:
        part = shot.shot * prepare.PARTS // len(shots)
        assert shot.split == ("test" if part in prepare.TEST_PARTS else "train")
        assert shot.frames >= prepare.MIN_SHOT and shot.film_frame + shot.frames <= prepare.FILM_END


def test_shipped_sprites_and_photos_are_whole():
    with np.load(data_dir() / "sprites" / "fashion.npz", allow_pickle=False) as arrays:
        for split, number in prepare.PER_CLASS.items():
            assert arrays[f"{split}_images"].shape == (6 * number, 28, 28)
            assert np.bincount(arrays[f"{split}_labels"]).tolist() == [number] * 6
    notes = json.loads((data_dir() / "sprites" / "fashion.json").read_text())
    assert notes["classes"] == list(prepare.SPRITES.values())
    photos = sorted((data_dir() / "backgrounds").glob("*.png"))
    assert len(photos) == len(prepare.PHOTOS)
    for photo in photos:
        with Image.open(photo) as picture:
            assert picture.size == (192, 192) and picture.mode == "RGB"
    for folder in ("clips", "sprites", "backgrounds"):
        assert (data_dir() / folder / "LICENCE.txt").is_file()


def test_film_is_cut_encoded_and_tabled(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "FILM_END", 100)
    monkeypatch.setattr(prepare, "FILM_SIZE", (32, 44))
    monkeypatch.setattr(prepare, "PARTS", 2)
    monkeypatch.setattr(prepare, "TEST_PARTS", (1,))
    film = np.zeros((100, 32, 44, 3), np.uint8)
    film[:, :, ::2] = 90  # contrast, so that no shot counts as black
    film[60:, ..., 0] = 200
    write_video(tmp_path / "film.mkv", film, lossless=True)
    assert prepare.main(["film", str(tmp_path / "film.mkv"), "--into", str(tmp_path)]) == 0
    with (tmp_path / "shots.csv").open(newline="") as table:
        rows = [(row["file"], int(row["film_frame"]), int(row["frames"])) for row in csv.DictReader(table)]
    assert rows == [("train.mp4", 0, 60), ("test.mp4", 60, 40)]
    assert read_video(tmp_path / "test.mp4").shape == (40, 32, 44, 3)
    before = (tmp_path / "shots.csv").read_bytes()
    prepare.main(["film", str(tmp_path / "film.mkv"), "--into", str(tmp_path)])
    assert (tmp_path / "shots.csv").read_bytes() == before


def test_sprites_keep_file_order(tmp_path):
    labels = np.tile(np.arange(10, dtype=np.uint8), 2)
    images = np.arange(20, dtype=np.uint8).repeat(784)
    for prefix in ("train", "t10k"):
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + images.tobytes()))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels.tobytes()))
    prepare.prepare_sprites(tmp_path, tmp_path)
    with np.load(tmp_path / "fashion.npz", allow_pickle=False) as arrays:
        assert arrays["test_images"][:, 0, 0].tolist() == [0, 10, 1, 11, 3, 13, 7, 17, 8, 18, 9, 19]
        assert arrays["test_labels"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(ParameterError, match="train-images-idx3-ubyte.gz is missing"):
        prepare.prepare_sprites(tmp_path, tmp_path)
