"""Makes the shipped inputs again from their sources; nobody needs it to run MobiVid.

    python -m mobivid_core.data.prepare film BBB.mp4          -> data/clips
    python -m mobivid_core.data.prepare sprites IDX_FOLDER    -> data/sprites
    python -m mobivid_core.data.prepare photos IMAGE_FOLDER   -> data/backgrounds

Sources: the film as in moviepy 2.2.1's source package (1280x720, sha256 475fbbf3...), Fashion-MNIST's four
idx.gz files (Debian's dataset-fashion-mnist has them), scikit-image's `skimage/data` folder. Licences: data/README.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np

from mobivid_core.data.film import CHECKSUMS, Shot, read_shots
from mobivid_core.data.shots import find_shots
from mobivid_core.data.video_io import iterate_frames, write_video
from mobivid_core.errors import ParameterError
from mobivid_core.files import sha256
from mobivid_core.paths import data_dir

FILM_SIZE = (128, 172)  # height, width: 4:3 to the nearest even width
FILM_END = 11_720  # the end titles begin here
MIN_SHOT = 17  # frames: one clip
MIN_CONTRAST = 12  # grey levels: leaves the black beginning out
PARTS, TEST_PARTS = 10, (2, 7)  # tenths of the list of shots
SPRITES = {0: "t-shirt", 1: "trouser", 3: "dress", 7: "sneaker", 8: "bag", 9: "ankle boot"}
PER_CLASS = {"train": 600, "test": 100}
PHOTOS = ("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png",
          "hubble_deep_field.jpg", "rocket.jpg")  # fmt: skip
PHOTO_SIDE = 192


def prepare_film(source: Path, folder: Path) -> None:
    """Write the shots of both splits, one file each, the table `shots.csv` and checksums.

    Where the folder has a table, its shots are kept: a soft cut moves by a frame with the scaler's rounding, and
    models were trained on these. Delete it to cut the film anew.
    """
    film = np.empty((FILM_END, *FILM_SIZE, 3), np.uint8)
    for index, frame in zip(range(FILM_END), iterate_frames(source, size=FILM_SIZE), strict=False):
        film[index] = frame
    table = folder / "shots.csv"
    shots = read_shots(table) if table.is_file() else _cut(film)
    for split in ("train", "test"):
        own = (shot for shot in shots if shot.split == split)
        chosen = [frame for s in own for frame in range(s.film_frame, s.film_frame + s.frames)]
        # A key frame every two seconds: spans are read by seeking.
        write_video(folder / f"{split}.mp4", film[chosen], crf=16, preset="veryslow", key_frames=48)
    with table.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow([column.name for column in fields(Shot)])
        writer.writerows(astuple(shot) for shot in shots)
    sums = [f"{sha256(folder / name)}  {name}\n" for name in ("test.mp4", "train.mp4")]
    (folder / CHECKSUMS).write_text("".join(sums), encoding="utf-8")


def _cut(film: np.ndarray) -> list[Shot]:
    """Shots long and bright enough, split by tenths of their list."""
    found = [
        (first, length)
        for first, length in find_shots(film)
        if length >= MIN_SHOT and film[first : first + length : 4].std(axis=(1, 2)).max() > MIN_CONTRAST
    ]
    shots: list[Shot] = []
    end = {"train": 0, "test": 0}
    for number, (first, length) in enumerate(found):
        split = "test" if number * PARTS // len(found) in TEST_PARTS else "train"
        shots.append(Shot(number, f"{split}.mp4", end[split], length, split, first))
        end[split] += length
    return shots


def prepare_sprites(source: Path, folder: Path) -> None:
    """Take the first images of six classes from each of Fashion-MNIST's own splits."""
    arrays = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = _read_idx(source / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = _read_idx(source / f"{prefix}-labels-idx1-ubyte.gz", 8)
        chosen = [np.flatnonzero(labels == code)[: PER_CLASS[split]] for code in SPRITES]
        arrays[f"{split}_images"] = images[np.concatenate(chosen)]
        arrays[f"{split}_labels"] = np.repeat(np.arange(len(SPRITES), dtype=np.uint8), [len(own) for own in chosen])
    np.savez_compressed(folder / "fashion.npz", **arrays)
    notes = {
        "classes": list(SPRITES.values()),
        "fashion_mnist_labels": list(SPRITES),
        "per_class": PER_CLASS,
        "rule": "the first images of each class in file order",
    }
    (folder / "fashion.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


def prepare_photos(source: Path, folder: Path) -> None:
    """Crop each photo centrally to a square and scale it."""
    from PIL import Image

    for name in PHOTOS:
        photo = Image.open(source / name).convert("RGB")
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        square = photo.crop((left, top, left + side, top + side))
        small = square.resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
        small.save(folder / f"{Path(name).stem.removesuffix('_deep_field')}.png", optimize=True)


def _read_idx(path: Path, header: int) -> np.ndarray:
    if not path.is_file():
        raise ParameterError(f"{path} is missing; the folder must hold Fashion-MNIST's four idx.gz files")
    with gzip.open(path) as stream:
        return np.frombuffer(stream.read(), np.uint8, offset=header)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: make one kind of input."""
    makers = {
        "film": (prepare_film, "clips"),
        "sprites": (prepare_sprites, "sprites"),
        "photos": (prepare_photos, "backgrounds"),
    }
    parser = argparse.ArgumentParser(prog="python -m mobivid_core.data.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=makers)
    parser.add_argument("source", type=Path)
    parser.add_argument("--into", type=Path, help="folder to write instead of the one in data/")
    options = parser.parse_args(arguments)
    make, name = makers[options.kind]
    folder = options.into or data_dir() / name
    folder.mkdir(parents=True, exist_ok=True)
    make(options.source, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
