"""Makes the shipped inputs again from their sources; nobody needs it to run MobiVid.

    python -m mobivid_core.data.prepare film BBB.mp4          -> data/clips
    python -m mobivid_core.data.prepare sprites ICON_FOLDER   -> data/sprites
    python -m mobivid_core.data.prepare photos IMAGE_FOLDER   -> data/backgrounds (and the film's frames, made soft)

Sources: the film as in moviepy 2.2.1's source package (1280x720, sha256 475fbbf3...), the npm packages
`@iconify-json/*` of `SETS`, scikit-image's `skimage/data` folder. Licences: data/README.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
import torch

from mobivid_core.data.film import CHECKSUMS, FILM_HEIGHT, Shot, film_clips, read_shots
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
#: Emoji sets of the sprites, and the part that each serves: one artist is held out for tests.
SETS = {
    "noto": "train",
    "noto-v1": "train",
    "twemoji": "train",
    "fluent-emoji-flat": "train",
    "fluent-emoji": "train",
    "fxemoji": "train",
    "emojione": "test",
}
#: Object -> names of its icons in the sets.
OBJECTS = {
    "star": ("star",),
    "heart": ("red-heart", "heart-suit"),
    "apple": ("red-apple", "green-apple", "redapple", "greenapple"),
    "tree": ("deciduous-tree", "evergreen-tree", "deciduoustree"),
    "house": ("house", "housebuilding"),
    "car": ("automobile", "taxi", "sport-utility-vehicle"),
    "rocket": ("rocket",),
    "sailboat": ("sailboat",),
    "fish": ("fish", "tropical-fish"),
    "butterfly": ("butterfly",),
    "elephant": ("elephant",),
    "mushroom": ("mushroom",),
}
#: Drawings with a scene around the object.
LEFT_OUT = {("fxemoji", "sailboat"), ("emojione", "fish")}
SPRITE_SIDE, SPRITE_RIM = 80, 3
#: Photos of things; textures (brick, grass, gravel) look plain out of focus.
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "rocket.jpg")
PHOTO_SIDE = 192
SOFT_SIDE = 64  # backgrounds are out of focus: more pixels would show nothing
SOFT_FILM = {"train": 96, "test": 48}


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
    """Rasterise the drawings of each object from several artists' emoji sets, as luminance and opacity.

    Args:
        source: Folder with the unpacked npm packages `@iconify-json/<set>`, one folder a set of `SETS`.
        folder: Where `objects.npz` and `objects.json` go.
    """
    planes, rows = [], []
    for artist, part in SETS.items():
        if not (source / artist / "icons.json").is_file():
            raise ParameterError(
                f"{source / artist} holds no icons.json; unpack the npm package @iconify-json/{artist}"
            )
        icons = json.loads((source / artist / "icons.json").read_text(encoding="utf-8"))
        licence = json.loads((source / artist / "info.json").read_text(encoding="utf-8"))["license"]["spdx"]
        for shape, names in OBJECTS.items():
            for name in names:
                if name in icons["icons"] and (artist, name) not in LEFT_OUT:
                    planes.append(_drawing(icons, name))
                    rows.append({"shape": shape, "set": artist, "icon": name, "licence": licence, "part": part})
    np.savez_compressed(folder / "objects.npz", planes=np.stack(planes))
    (folder / "objects.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _drawing(icons: dict, name: str) -> np.ndarray:
    """(3, side, side) uint8: tinted share, white share, opacity of one icon; its content fills the square but a rim."""
    import io

    import cairosvg  # only this recipe needs it: pip install cairosvg
    from PIL import Image

    icon, over = icons["icons"][name], 4
    width, height = (icon.get(k, icons.get(k, icons.get("height", 16))) for k in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{icon["body"]}</svg>'
    )
    png = cairosvg.svg2png(bytestring=svg.encode(), output_width=over * SPRITE_SIDE, output_height=over * SPRITE_SIDE)
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    box = image.getchannel("A").point(lambda v: 255 * (v > 8)).getbbox()
    inner = SPRITE_SIDE - 2 * SPRITE_RIM
    cut = image.crop(box)
    scale = inner / max(cut.size)
    cut = cut.resize([max(1, round(scale * s)) for s in cut.size], Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SPRITE_SIDE, SPRITE_SIDE))
    square.paste(cut, [(SPRITE_SIDE - s) // 2 for s in cut.size])
    rgba = np.asarray(square, np.float32) / 255
    return np.round(255 * _tintable(rgba[..., :3], rgba[..., 3])).astype(np.uint8)


def _tintable(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Luminance as a share of the tint and a share of white, (3, H, W) with the opacity, all premultiplied.

    Drawings are made alike by percentiles of their luminance; the brightest parts of those with contrast turn whitish,
    so that eyes, windows and spots stay visible in any colour.
    """
    luminance = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(luminance[alpha > 0.9], [3, 97])
    contrast = max(high - low, 0.25)
    place = np.clip(1 - (high - luminance) / contrast, 0, 1)
    middle = np.clip(np.median(place[alpha > 0.9]), 0.05, 0.72)
    place = place ** (np.log(0.72) / np.log(middle))  # most of a drawing shows the tint in full
    shade = 0.3 + 0.7 * place
    white = 0.55 * np.clip((place - 0.8) / 0.2, 0, 1) * (1.0 if high - low > 0.25 else 0.0)
    return np.stack([shade * (1 - white) * alpha, white * alpha, alpha])


def prepare_photos(source: Path, folder: Path) -> None:
    """Crop each photo centrally to a square and scale it; write the soft film frames beside them.

    Args:
        source: Folder of `PHOTOS`.
        folder: Where `<name>.png`, `film_train.png` and `film_test.png` go.

    Raises:
        ParameterError: A photo is missing.
    """
    from PIL import Image

    missing = next((name for name in PHOTOS if not (source / name).is_file()), None)
    if missing:
        raise ParameterError(f"{source / missing} is missing; give scikit-image's folder skimage/data")
    for name in PHOTOS:
        photo = Image.open(source / name).convert("RGB")
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        square = photo.crop((left, top, left + side, top + side))
        small = square.resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
        small.save(folder / f"{Path(name).stem.removesuffix('_deep_field')}.png", optimize=True)
    for part, count in SOFT_FILM.items():
        Image.fromarray(_soft_frames(part, count)).save(folder / f"film_{part}.png", optimize=True)


def _soft_frames(part: str, count: int) -> np.ndarray:
    """(count * side, side, 3) uint8: frames of the shipped film's shots, one below the other."""
    frames = film_clips(part, frames=1, size=FILM_HEIGHT, limit=count).clips[:, :, 0]
    soft = torch.nn.functional.interpolate(frames, (SOFT_SIDE, SOFT_SIDE), mode="area")
    return ((soft + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).flatten(0, 1).numpy()


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
