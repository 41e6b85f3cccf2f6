"""Trains a tiny transformer in a process of its own: started, split and killed by the tests of the engine."""

import argparse
from pathlib import Path

import torch

torch.set_num_threads(1)

from mobivid_core.flow.condition import Condition  # noqa: E402
from mobivid_core.flow.path import flow_batch, flow_error  # noqa: E402
from mobivid_core.models.config import DiTConfig  # noqa: E402
from mobivid_core.models.dit import MobiVidTransformer3DModel  # noqa: E402
from mobivid_core.train.distributed import SplitLoss, processes  # noqa: E402
from mobivid_core.train.loop import TrainSettings, train  # noqa: E402

TINY = DiTConfig.uniform(blocks=2, heads=2, ffn=32, hidden=16, head_dim=8, in_channels=4, text_dim=8)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--stop", type=int, help="end cleanly after this many steps of the schedule")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--processes", type=int, help="fail unless so many meet")
    parser.add_argument("--report", action="store_true", help="say each finished step")
    a = parser.parse_args()
    if a.processes and processes().num_processes != a.processes:
        raise SystemExit(f"{processes().num_processes} processes instead of {a.processes}")
    torch.manual_seed(0)
    model = MobiVidTransformer3DModel.from_sizes(TINY)
    with torch.no_grad():  # away from the zero start, so that every gradient counts
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))

    def draw(step, generator):
        if step == a.stop:
            raise KeyboardInterrupt
        clips = torch.randn(12, 4, 1, 2, 2, generator=generator)
        captions = Condition(torch.randn(12, 3, 8, generator=generator), torch.ones(12, 3).bool())
        return flow_batch(clips, captions, generator, drop_text=0)

    settings = TrainSettings(
        a.steps, warmup=2, ema=0.9, log_every=1, save_every_s=0.0, accumulate=a.accumulate, sharded=a.sharded
    )
    row = (lambda row: print(int(row["step"]), flush=True)) if a.report else None
    loss = SplitLoss(draw, lambda *part: flow_error(model, *part))
    try:
        train(model, loss, settings, a.folder, progress=False, on_log=row)
    except KeyboardInterrupt:
        pass
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
