"""Rebuild the shipped inputs from their sources; not needed to run MobiVid.

    python data/prepare.py film BBB.mp4          -> data/clips
    python data/prepare.py sprites ICON_FOLDER   -> data/sprites
    python data/prepare.py preview .             -> data/captioned.webp, from what the others made
    python data/prepare.py photos IMAGE_FOLDER   -> data/backgrounds (and the film's frames, made soft)

Sources: the film as in moviepy 2.2.1's source package (1280x720, sha256 475fbbf3...), the npm packages
`@iconify-json/*` of `SETS`, scikit-image's `skimage/data` folder. Licences: data/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mobivid_core.command import CommandParser, given_path, run_command
from mobivid_core.data.captions import VOCABULARY
from mobivid_core.data.film import CHECKSUMS, FILM_HEIGHT, Shot, film_clips, read_shots
from mobivid_core.data.render import label_of, render_clips
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
#: Drawings with a scene or a large bubble around the object, and a fish seen as a ball, which takes more than a glance.
LEFT_OUT = {
    ("emojione", "fish"),
    ("fxemoji", "sailboat"),
    ("fluent-emoji", "tropical-fish"),
    ("fluent-emoji-flat", "tropical-fish"),
}
SPRITE_SIDE, SPRITE_RIM = 80, 3
_OVER = 8  # pixels are rasterised finer and averaged
_FAINT, _SMALL_PART = 0.4, 0.1  # opacity of shadows; share of the largest part's area
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
        # A key frame every two seconds, as in the files that are shipped.
        write_video(folder / f"{split}.mp4", film[chosen], crf=16, preset="veryslow", key_frames=48)
    pd.DataFrame(shots).to_csv(table, index=False, lineterminator="\n")
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

    `source` holds the unpacked npm packages `@iconify-json/<set>`, one folder a set of `SETS`.
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
    import cv2

    icon = icons["icons"][name]
    width, height = (icon.get(k, icons.get(k, icons.get("height", 16))) for k in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{icon["body"]}</svg>'
    )
    rgba = _rasterise(svg, _OVER * SPRITE_SIDE).astype(np.float32) / 255
    planes = _tintable(rgba[..., :3], _main_parts(rgba[..., 3]))
    ys, xs = np.nonzero(planes[2] > 0.03)
    cut = planes[:, ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    # premultiplied planes are averaged, so that no rim takes the colour of what is transparent
    scale = (SPRITE_SIDE - 2 * SPRITE_RIM) / max(cut.shape[1:])
    height, width = (max(1, round(scale * side)) for side in cut.shape[1:])
    square = np.zeros((3, SPRITE_SIDE, SPRITE_SIDE), np.float32)
    top, left = (SPRITE_SIDE - height) // 2, (SPRITE_SIDE - width) // 2
    for plane, drawn in zip(square, cut, strict=True):
        small = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
        plane[top : top + height, left : left + width] = small
    return np.round(255 * square).astype(np.uint8)


def _rasterise(svg: str, side: int) -> np.ndarray:
    """(side, side, 4) uint8, colours not premultiplied."""
    import io

    from PIL import Image

    try:
        import resvg_py
    except ImportError as error:
        raise ParameterError("this recipe rasterises drawings by resvg: `pip install resvg-py`") from error
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def _main_parts(alpha: np.ndarray) -> np.ndarray:
    """Opacity (H, W) without faint shadows and without small parts that lie apart from the object (sparks, bubbles)."""
    import cv2

    number, parts, counts, _ = cv2.connectedComponentsWithStats((alpha > _FAINT).astype(np.uint8))
    areas = counts[1:, cv2.CC_STAT_AREA]
    kept = [1 + i for i in range(number - 1) if areas[i] > _SMALL_PART * areas.max()]
    near = cv2.dilate(np.isin(parts, kept).astype(np.uint8), np.ones((3, 3), np.uint8))  # with their soft edge
    return np.where(near > 0, alpha, 0).astype(np.float32)


def _tintable(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Luminance as a share of the tint and a share of white, (3, H, W) with the opacity, all premultiplied.

    Drawings are made alike by percentiles of their luminance; the brightest parts of those with contrast turn whitish,
    so that eyes, windows and spots stay visible in any colour.
    """
    luminance = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    low, middle, high = np.percentile(luminance[alpha > 0.9], [3, 50, 97])
    if high - low > 0.25:  # where half of a drawing has its darkest or its brightest tone, that tone is no extreme
        low, high = min(low, (middle - 0.3 * high) / 0.7), max(high, low + (middle - low) / 0.85)
    contrast = max(high - low, 0.25)
    place = np.clip(1 - (high - luminance) / contrast, 0, 1)
    middle = np.clip(np.median(place[alpha > 0.9]), 0.05, 0.72)
    place = place ** (np.log(0.72) / np.log(middle))  # most of a drawing shows the tint in full
    shade = 0.3 + 0.7 * place
    white = 0.55 * np.clip((place - 0.8) / 0.2, 0, 1) * (1.0 if high - low > 0.25 else 0.0)
    return np.stack([shade * (1 - white) * alpha, white * alpha, alpha])


def prepare_photos(source: Path, folder: Path) -> None:
    """Crop each photo centrally to a square and scale it; write the soft film frames beside them."""
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


def prepare_preview(source: Path, folder: Path) -> None:
    """Animate one training clip of each object, side by side: `captioned.webp`. The source is not read."""
    from PIL import Image

    del source
    first = {}
    for index in range(400):
        first.setdefault(label_of("train", index).shape, index)
    clips = render_clips("train", [first[shape] for shape in VOCABULARY["shape"]], size=96).clips
    tiles = ((clips + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).unflatten(0, (2, -1))  # (2, n, 3, T, H, W)
    frames = tiles.permute(3, 0, 4, 1, 5, 2).flatten(1, 2).flatten(2, 3)
    pictures = [Image.fromarray(frame.numpy()) for frame in frames]
    pictures[0].save(
        folder / "captioned.webp", save_all=True, append_images=pictures[1:], duration=1000 // 12, loop=0, quality=75
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: make one kind of input."""
    makers = {
        "film": (prepare_film, "clips"),
        "sprites": (prepare_sprites, "sprites"),
        "photos": (prepare_photos, "backgrounds"),
        "preview": (prepare_preview, "."),
    }
    parser = CommandParser("", __doc__, prog="data/prepare.py")
    parser.add_argument("kind", choices=makers)
    parser.add_argument("source", type=given_path)
    parser.add_out("folder to write (default: the one in data/)")

    def prepare(options: argparse.Namespace) -> None:
        make, name = makers[options.kind]
        if not options.source.exists():
            raise ParameterError(f"there is no {options.source}; the module's first lines say what each kind needs")
        folder = options.out or data_dir() / name
        folder.mkdir(parents=True, exist_ok=True)
        make(options.source, folder)

    return run_command(prepare, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
