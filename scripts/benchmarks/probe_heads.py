"""Nine linear heads trained together against nine bare PyTorch loops one after another, on the same features.

python scripts/benchmarks/probe_heads.py

Three optimizers by three learning rates over 50,000 features of 512 dimensions, 10 classes, batches of 128.
"""

import itertools
import time
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from common import TINY, interleaved, print_machine
from torch import Tensor, nn
from torch.optim import SGD, Adam, RMSprop

from cv_lab.frozen.heads import HeadEpoch, train_heads
from cv_lab.training.losses import CrossEntropy

SAMPLES, WIDTH, CLASSES, BATCH, EPOCHS = 512 if TINY else 50_000, 512, 10, 128, 2
KINDS: list[Any] = [Adam, partial(SGD, momentum=0.9), RMSprop]
OPTIMIZERS = [partial(kind, lr=lr) for kind, lr in itertools.product(KINDS, (1e-2, 1e-3, 1e-4))]


def main() -> None:
    torch.manual_seed(0)
    features = torch.randn(SAMPLES, WIDTH)
    labels = (features @ torch.randn(WIDTH, CLASSES)).argmax(1)
    start = nn.Linear(WIDTH, CLASSES)
    steps = SAMPLES // BATCH
    batches = [torch.randperm(SAMPLES)[: steps * BATCH].view(steps, BATCH) for _ in range(EPOCHS)]
    loss = CrossEntropy()
    ends: dict[str, list[Tensor]] = {}

    def bare() -> float:
        begun = time.perf_counter()
        ends["bare"] = []
        for make in OPTIMIZERS:
            head = nn.Linear(WIDTH, CLASSES)
            head.load_state_dict(start.state_dict())
            optimizer = make(head.parameters())
            for epoch in batches:
                for index in epoch:
                    optimizer.zero_grad()
                    F.cross_entropy(head(features[index]), labels[index]).backward()
                    optimizer.step()
            ends["bare"].append(head.weight.detach())
        return time.perf_counter() - begun

    def together() -> float:
        begun = time.perf_counter()
        optimizers = [make([nn.Parameter(torch.zeros(1))]) for make in OPTIMIZERS]
        rates = torch.tensor([[o.param_groups[0]["lr"] for o in optimizers]]).repeat(EPOCHS * steps + 1, 1)
        first = torch.cat([start.weight, start.bias[:, None]], dim=1).detach()
        *_, last = train_heads(first, features, labels, iter(batches), loss, optimizers, rates)
        ends["together"] = [HeadEpoch.unpack(head, CLASSES, WIDTH + 1).weight[:, :-1] for head in last]
        return time.perf_counter() - begun

    print_machine()
    seconds = interleaved({"nine bare loops": bare, "together": together}, rounds=3)
    for name, value in seconds.items():
        print(f"{name:>22}: {value:.2f} s for {EPOCHS} epochs")
    print(f"{'ratio':>22}: 1/{seconds['nine bare loops'] / seconds['together']:.1f}")
    apart = max((a - b).abs().max().item() for a, b in zip(ends["bare"], ends["together"], strict=True))
    largest = max(weight.abs().max().item() for weight in ends["bare"])
    print(f"{'largest difference':>22}: {apart:.1e} of weights up to {largest:.1f}")


if __name__ == "__main__":
    main()
