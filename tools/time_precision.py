"""Networks in float32 and in bf16 on this CPU, training and extracting, into results/benchmarks/precision_cpu.csv.

    python tools/time_precision.py

One thread, images of 128 x 64 in batches of 16, channels_last; the shortest processor time of several. Needs timm.
"""
import time
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from ptl_nb.disk import write_csv
from ptl_nb.mixed_precision import autocast
from ptl_nb.model import backbone

NETWORKS = ("mini", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "timm:efficientnet_lite0",
            "timm:mobilenetv4_conv_small")
BATCH, REPEATS = 16, 6
FILE = Path(__file__).resolve().parents[1] / "results/benchmarks/precision_cpu.csv"


def rate(step) -> float:     # images per second of processor time
    "Of the fastest of several repetitions, after one to warm up."
    step()
    spent = []
    for _ in range(REPEATS):
        start = time.process_time()
        step()
        spent.append(time.process_time() - start)
    return BATCH / min(spent)


def rates(name: str, precision: str) -> dict[str, float]:
    "Images per second of forward and backward passes, and of forward passes alone."
    net = backbone(name)[0].to(memory_format=torch.channels_last).train()
    x = torch.randn(BATCH, 3, 128, 64).contiguous(memory_format=torch.channels_last)

    def train() -> None:
        net.zero_grad(set_to_none=True)
        with autocast(precision): e = net(x)
        e.float().mean().backward()

    def extract() -> None:
        with torch.inference_mode(), autocast(precision): net.eval()(x)

    return {f"training, {precision}": rate(train), f"extraction, {precision}": rate(extract)}


def main() -> None:
    torch.set_num_threads(1)
    rows = [{"network": name, **rates(name, "fp32"), **rates(name, "bf16")} for name in tqdm(NETWORKS)]
    table = pd.DataFrame(rows).round(0)
    write_csv(FILE, table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
