"""The recipe of the shipped inputs, on made-up sources, and the shipped inputs themselves."""

import csv
import importlib.util
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mobivid_core.data.captions import VOCABULARY
from mobivid_core.data.film import film_shots
from mobivid_core.data.video_io import read_video, write_video
from mobivid_core.errors import ParameterError
from mobivid_core.paths import data_dir

_SCRIPT = importlib.util.spec_from_file_location("prepare", data_dir() / "prepare.py")
prepare = importlib.util.module_from_spec(_SCRIPT)
_SCRIPT.loader.exec_module(prepare)


def test_shipped_splits_follow_the_rule():
    shots = film_shots()
    for shot in shots:
        part = shot.shot * prepare.PARTS // len(shots)
        assert shot.split == ("test" if part in prepare.TEST_PARTS else "train")
        assert shot.frames >= prepare.MIN_SHOT and shot.film_frame + shot.frames <= prepare.FILM_END


def test_shipped_sprites_and_photos_are_whole():
    rows = json.loads((data_dir() / "sprites" / "objects.json").read_text(encoding="utf-8"))
    with np.load(data_dir() / "sprites" / "objects.npz", allow_pickle=False) as arrays:
        planes = arrays["planes"]
    assert planes.shape == (len(rows), 3, prepare.SPRITE_SIDE, prepare.SPRITE_SIDE) and planes.dtype == np.uint8
    assert (planes[:, 0].astype(int) + planes[:, 1] <= planes[:, 2].astype(int) + 1).all()  # premultiplied; rounding
    rim = prepare.SPRITE_RIM - 1
    assert planes[:, 2, :rim].max() == planes[:, 2, :, :rim].max() == 0  # nothing is cut off at the edge
    assert {row["shape"] for row in rows} == set(prepare.OBJECTS) == set(VOCABULARY["shape"])
    assert all(row["part"] == prepare.SETS[row["set"]] for row in rows)
    folder = data_dir() / "backgrounds"
    photos = sorted(path for path in folder.glob("*.png") if not path.name.startswith("film_"))
    assert len(photos) == len(prepare.PHOTOS)
    for photo in photos:
        with Image.open(photo) as picture:
            assert picture.size == (prepare.PHOTO_SIDE, prepare.PHOTO_SIDE) and picture.mode == "RGB"
    for part, count in prepare.SOFT_FILM.items():
        with Image.open(folder / f"film_{part}.png") as sheet:
            assert sheet.size == (prepare.SOFT_SIDE, count * prepare.SOFT_SIDE) and sheet.mode == "RGB"


def test_every_source_has_its_licence_listed():
    rows = json.loads((data_dir() / "sprites" / "objects.json").read_text(encoding="utf-8"))
    assert all(row["licence"] in ("Apache-2.0", "CC-BY-4.0", "MIT") for row in rows)
    listed = (data_dir() / "sprites" / "LICENCE.txt").read_text(encoding="utf-8")
    names = {line.split("  ")[0] for line in listed.splitlines()}
    assert {row["set"] for row in rows} <= {name for line in names for name in line.split(", ")}
    words = (data_dir() / "backgrounds" / "LICENCE.txt").read_text(encoding="utf-8")
    assert all(path.name in words for path in (data_dir() / "backgrounds").glob("*.png"))
    assert "Blender Foundation" in words and "CC BY 3.0" in words
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
    assert prepare.main(["film", str(tmp_path / "film.mkv"), "--out", str(tmp_path)]) == 0
    with (tmp_path / "shots.csv").open(newline="") as table:
        rows = [(row["file"], int(row["film_frame"]), int(row["frames"])) for row in csv.DictReader(table)]
    assert rows == [("train.mp4", 0, 60), ("test.mp4", 60, 40)]
    assert read_video(tmp_path / "test.mp4").shape == (40, 32, 44, 3)
    before = (tmp_path / "shots.csv").read_bytes()
    prepare.main(["film", str(tmp_path / "film.mkv"), "--out", str(tmp_path)])
    assert (tmp_path / "shots.csv").read_bytes() == before


def _icons(source: Path, artist: str, body: str, size: int = 16) -> None:
    """A made-up icon set with one drawing under the names of all objects but `absent`."""
    names = {name for group in prepare.OBJECTS.values() for name in group} - {"absent"}
    folder = source / artist
    folder.mkdir(parents=True)
    icons = {"width": size, "height": size, "icons": {name: {"body": body} for name in names}}
    (folder / "icons.json").write_text(json.dumps(icons))
    (folder / "info.json").write_text(json.dumps({"license": {"spdx": "MIT"}}))


def _rectangle(svg_string: str, width: int, height: int) -> bytes:
    """What resvg draws of a picture with red rectangles; the recipe alone needs the library."""
    scale = width / float(re.search(r'viewBox="([^"]*)"', svg_string)[1].split()[2])
    image = Image.new("RGBA", (width, height))
    for found in re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', svg_string):
        x, y, across, down = (round(scale * float(value)) for value in found)
        image.paste((204, 0, 0, 255), (x, y, x + across, y + down))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_sprites_are_rasterised_with_their_artists(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", SimpleNamespace(svg_to_bytes=_rectangle))
    monkeypatch.setattr(prepare, "SETS", {"one": "train", "two": "test"})
    monkeypatch.setattr(prepare, "OBJECTS", {"star": ("star",), "heart": ("red-heart", "absent")})
    monkeypatch.setattr(prepare, "LEFT_OUT", {("two", "red-heart")})
    for artist in prepare.SETS:
        spark = '<rect x="14" y="1" width="1" height="1"/>'  # apart from the object: dropped
        _icons(tmp_path, artist, f'<rect x="2" y="6" width="8" height="4" fill="#c00"/>{spark}')
    assert prepare.main(["sprites", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "objects.json").read_text())
    assert [(r["set"], r["icon"], r["part"]) for r in rows] == [
        ("one", "star", "train"),
        ("one", "red-heart", "train"),
        ("two", "star", "test"),
    ]
    with np.load(tmp_path / "out" / "objects.npz", allow_pickle=False) as arrays:
        alpha = arrays["planes"][0, 2]
    ys, xs = np.nonzero(alpha > 127)
    inner = prepare.SPRITE_SIDE - 2 * prepare.SPRITE_RIM
    assert np.ptp(xs) + 1 == pytest.approx(inner, abs=2) and np.ptp(ys) + 1 == pytest.approx(inner / 2, abs=2)


def test_a_missing_icon_set_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"noto holds no icons.json; unpack the npm package @iconify-json/noto"):
        prepare.prepare_sprites(tmp_path, tmp_path)


def test_tintable_keeps_order_and_adds_up_to_the_opacity():
    grey = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    alpha = np.ones((8, 8), np.float32)
    alpha[0] = 0.0
    tinted, white, opacity = prepare._tintable(np.repeat(grey[..., None], 3, 2), alpha)
    assert (opacity == alpha).all() and tinted[0].max() == white[0].max() == 0  # premultiplied
    assert (tinted + white <= opacity + 1e-6).all() and tinted.min() >= 0 and white.min() >= 0
    shade = (tinted + white)[1:].ravel()  # brightness in white light: a brighter pixel never gets darker
    assert (np.diff(shade) >= -1e-6).all()
    assert shade[0] == pytest.approx(0.3, abs=0.02) and white[1:].max() > 0.4  # dark parts keep a third of the tint


def test_tintable_makes_dark_and_bright_drawings_alike():
    rng = np.random.default_rng(0)
    base = rng.random((16, 16, 1)).astype(np.float32).repeat(3, 2)
    alpha = np.ones((16, 16), np.float32)
    dark, bright = (prepare._tintable(scale * base + shift, alpha) for scale, shift in ((0.4, 0.0), (0.4, 0.6)))
    np.testing.assert_allclose(dark, bright, atol=1e-4)  # float32
    flat = prepare._tintable(np.full((16, 16, 3), 0.5, np.float32), alpha)
    assert np.ptp(flat[0]) == 0 and flat[1].max() == 0  # one flat colour is all tint, without white parts


def test_photos_are_cropped_and_film_frames_made_soft(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "PHOTOS", ("wide.png", "tall_deep_field.jpg"))
    monkeypatch.setattr(prepare, "SOFT_FILM", {"train": 2, "test": 1})
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = (200, 100, 50)  # the central square
    Image.fromarray(picture).save(tmp_path / "wide.png")
    Image.fromarray(picture.transpose(1, 0, 2).copy()).save(tmp_path / "tall_deep_field.jpg", quality=95)
    out = tmp_path / "out"
    assert prepare.main(["photos", str(tmp_path), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["film_test.png", "film_train.png", "tall.png", "wide.png"]
    wide = np.asarray(Image.open(out / "wide.png"))
    assert wide.shape == (prepare.PHOTO_SIDE, prepare.PHOTO_SIDE, 3) and (wide == (200, 100, 50)).all()
    for part, count in prepare.SOFT_FILM.items():
        made = np.asarray(Image.open(out / f"film_{part}.png")).astype(int)
        shipped = np.asarray(Image.open(data_dir() / "backgrounds" / f"film_{part}.png")).astype(int)
        assert made.shape == (count * prepare.SOFT_SIDE, prepare.SOFT_SIDE, 3)
        assert made.std() > 10 and shipped.shape[1:] == made.shape[1:]


def test_a_missing_photo_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"astronaut.png is missing"):
        prepare.prepare_photos(tmp_path, tmp_path)


def test_the_preview_shows_every_object_once_and_is_the_shipped_one(tmp_path: Path) -> None:
    prepare.prepare_preview(tmp_path, tmp_path)
    with Image.open(tmp_path / "captioned.webp") as made, Image.open(data_dir() / "captioned.webp") as shipped:
        assert made.size == shipped.size == (6 * 96, 2 * 96) and made.n_frames == shipped.n_frames == 17
        difference = np.abs(np.asarray(made.convert("RGB"), float) - np.asarray(shipped.convert("RGB"), float))
        assert difference.mean() < 2, "grey levels: the shipped preview is of other clips"
