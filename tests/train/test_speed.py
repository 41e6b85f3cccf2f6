"""Speed-ups are on only where the machine has what they need, and the comparison trains the same model in each arm."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mobivid_core.errors import TrainingError
from mobivid_core.memory import GLIBC_ENVIRONMENT
from mobivid_core.models.config import SMOKE_SERVER
from mobivid_core.models.dit import MobiVidTransformer3DModel
from mobivid_core.train import benchmark, speed
from mobivid_core.train.benchmark import PLAIN, Arm, compare, everything
from mobivid_core.train.precision import Precision
from mobivid_core.train.speed import Accelerated, SpeedPlan, cpp_compiler, has_amx_bf16, malloc_is_set


@pytest.fixture
def bare(monkeypatch):
    """A machine without GPU and compiler where bfloat16 is slower, in a process without allocator settings."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    slower = Precision(False, "bfloat16 2.0 times slower than float32, timed on linear")
    monkeypatch.setattr(speed, "choose", lambda kinds: slower)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(speed, "cpp_compiler", lambda: None)
    monkeypatch.setattr(speed.platform, "libc_ver", lambda: ("", ""))
    return monkeypatch


def test_a_bare_machine_gets_nothing_and_is_told_why(bare):
    plan = SpeedPlan.detect()
    assert not (plan.malloc or plan.bf16 or plan.compiled) and plan.threads >= 1
    for reason in ("not glibc", "2.0 times slower than float32", "no C++ compiler found"):
        assert reason in str(plan)
    assert everything(plan) == Arm("all together", fused=True, processes=plan.threads)


def test_each_part_is_on_where_its_condition_holds(bare):
    bare.setattr(speed, "choose", lambda kinds: Precision(True, "bfloat16 3.0 times as fast"))
    bare.setattr(speed, "cpp_compiler", lambda: "g++")
    plan = SpeedPlan.detect()
    assert plan.bf16 and plan.compiled and "bf16 on (3.0 times as fast); compile on (with g++)" in str(plan)


def test_processes_of_one_launcher_share_the_cores(bare):
    bare.setattr(speed, "usable_cores", lambda: 8)
    assert SpeedPlan.detect().threads == 8
    bare.setenv("LOCAL_WORLD_SIZE", "4")
    assert SpeedPlan.detect().threads == 2
    bare.setenv("LOCAL_WORLD_SIZE", "16")
    assert SpeedPlan.detect().threads == 1


def test_features_are_read_from_the_machine(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags : fpu avx512_bf16 amx_tile amx_bf16\n")
    assert has_amx_bf16(info)
    info.write_text("processor : 0\nflags : fpu avx512_bf16\nbugs : amx_bf16\n")
    assert not has_amx_bf16(info) and not has_amx_bf16(tmp_path / "nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert cpp_compiler() is None
    compiler = tmp_path / "clang++"
    compiler.write_text("")
    compiler.chmod(0o755)
    assert cpp_compiler() == "clang++"


def test_allocator_settings_count_only_when_all_are_there(monkeypatch):
    monkeypatch.setattr(speed.platform, "libc_ver", lambda: ("glibc", "2.36"))
    for name in GLIBC_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        assert not malloc_is_set()
    for name, value in GLIBC_ENVIRONMENT.items():
        assert not malloc_is_set()
        monkeypatch.setenv(name, value)
    assert malloc_is_set()


def test_relaunch_runs_the_same_command_once_more_with_the_settings(tmp_path, monkeypatch):
    for name in [*GLIBC_ENVIRONMENT, "MOBIVID_RELAUNCHED", "LOCAL_RANK"]:
        monkeypatch.delenv(name, raising=False)
    script = tmp_path / "script.py"
    root = str(Path(speed.__file__).parents[2])
    script.write_text(
        f"import sys; sys.path.insert(0, {root!r}); print('start', flush=True)\n"
        "from mobivid_core.train.speed import malloc_is_set, relaunch\n"
        "relaunch(); print(malloc_is_set(), sys.argv[1:])\n"
    )
    done = subprocess.run([sys.executable, script, "a b", "c"], capture_output=True, text=True, check=True)
    glibc = speed.platform.libc_ver()[0] == "glibc"
    assert done.stdout.splitlines() == ["start"] * (1 + glibc) + [f"{glibc} ['a b', 'c']"]


def test_arms_train_the_same_model():
    fast = [Arm("bf16", bf16=True, fused=True), Arm("two processes", processes=2)]
    frame = compare([PLAIN, *fast], sizes="smoke", batch=3, seconds=0.01)
    assert frame["arm"].tolist() == [PLAIN.name, "bf16", "two processes"] and frame["speedup"].iloc[0] == 1
    assert (frame["seconds_per_step"] > 0).all() and (frame["steps"] >= 3).all()
    # bfloat16 has 8 bits of precision
    assert frame["loss"].iloc[1] == pytest.approx(frame["loss"].iloc[0], rel=1e-2)
    # an uneven split of each batch over two processes is the same training
    assert frame["loss"].iloc[2] == pytest.approx(frame["loss"].iloc[0], rel=1e-5)


def test_a_failing_arm_shows_its_error(monkeypatch):
    monkeypatch.setattr(benchmark, "asdict", lambda arm: {"nonsense": 1})
    with pytest.raises(TrainingError, match="the arm 'x' of the speed comparison failed"):
        compare([Arm("x")], sizes="smoke")


@pytest.mark.parametrize("bf16, tolerance", [(False, 1e-5), (True, 3e-2)])
def test_an_accelerated_model_answers_as_the_model_does(bf16, tolerance):
    torch.manual_seed(0)
    model = MobiVidTransformer3DModel.from_sizes(SMOKE_SERVER).eval()
    torch.nn.init.normal_(model.proj_out.weight, std=0.1)  # it starts at zero
    inputs = (
        torch.randn(3, 16, 3, 2, 2),
        torch.tensor([900.0, 500, 100]),
        torch.randn(3, 5, 384),
        torch.ones(3, 5).bool(),
    )
    fast = Accelerated(model, SpeedPlan(False, bf16, cpp_compiler() is not None, 1, {}))
    with torch.no_grad():
        mine, theirs = fast(*inputs), model(*inputs).sample
    assert mine.dtype == torch.float32 and (mine - theirs).norm() < tolerance * theirs.norm()
    assert (mine - theirs).norm() > 0 or not bf16  # bfloat16 does leave a trace
    assert next(model.parameters()).requires_grad and not next(fast.parameters()).requires_grad
