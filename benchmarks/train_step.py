"""Our adversarial step against the textbook order, alternating in one process.

Textbook: the segmentor runs forward in each half, the critic keeps gradients in both, its
critics are separate networks, memory is laid out as PyTorch does by default. Ours: one forward,
no wasted gradients, critics side by side, channels last. Both sides start from the same weights
and see the same batches.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.optim import Adam

from segan_ray.models.critic import CriticBank
from segan_ray.models.segmentor import Segmentor
from segan_ray.training.losses import multi_scale_l1, soft_dice_loss
from segan_ray.training.step import adversarial_step

DEPTH, BATCH, TARGET = 3, 8, 1.35
WEIGHTS = (1.0,) * (DEPTH + 1)
Step = Callable[[Tensor, Tensor, Tensor], None]


def segmentor(width: int) -> Segmentor:
    torch.manual_seed(0)
    return Segmentor(4, 3, depth=4, base_width=width, concat_skips=True)


def textbook(width: int) -> Step:
    net = segmentor(width)
    critics = nn.ModuleList(CriticBank(4, 1, depth=DEPTH, base_width=width) for _ in range(3))
    net_optimizer, critic_optimizer = Adam(net.parameters()), Adam(critics.parameters())

    def distance(image: Tensor, fake: Tensor, truth: Tensor) -> Tensor:
        parts = [
            multi_scale_l1(
                critic(image, fake[:, region : region + 1]),
                critic(image, truth[:, region : region + 1]),
                scale_weights=WEIGHTS,
            )
            for region, critic in enumerate(critics)
        ]
        return torch.stack(parts).mean()

    def step(image: Tensor, truth: Tensor, brain: Tensor) -> None:
        critic_optimizer.zero_grad()
        with torch.no_grad():
            fake = net(image) * brain
        (-distance(image, fake, truth)).backward()
        critic_optimizer.step()
        net_optimizer.zero_grad()
        fake = net(image) * brain
        loss = distance(image, fake, truth) + soft_dice_loss(fake, truth, smoothing=50)
        loss.backward()
        net_optimizer.step()

    return step


def ours(width: int) -> Step:
    net = segmentor(width).to(memory_format=torch.channels_last)
    critic = CriticBank(4, 3, depth=DEPTH, base_width=width)
    critic = critic.to(memory_format=torch.channels_last)
    net_optimizer, critic_optimizer = Adam(net.parameters()), Adam(critic.parameters())

    def step(image: Tensor, truth: Tensor, brain: Tensor) -> None:
        adversarial_step(
            net,
            critic,
            net_optimizer,
            critic_optimizer,
            image.contiguous(memory_format=torch.channels_last),
            truth.contiguous(memory_format=torch.channels_last),
            brain,
            scale_weights=WEIGHTS,
            dice_weight=1.0,
            dice_smoothing=50.0,
            clamp=None,
        )

    return step


def seconds(step: Step, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    started = perf_counter()
    step(*batch)
    return perf_counter() - started


def compare(width: int, crop: int, rounds: int) -> dict[str, float]:
    """Return the median ratio of paired steps, and both sides' slices per second."""
    sides = textbook(width), ours(width)
    torch.manual_seed(1)
    brain = (torch.rand(BATCH, 1, crop, crop) > 0.3).float()
    image = torch.randn(BATCH, 4, crop, crop) * brain
    truth = (torch.rand(BATCH, 3, crop, crop) > 0.9).float() * brain
    batch = image, truth, brain
    for side in sides:
        seconds(side, batch)
    pairs = [(seconds(sides[0], batch), seconds(sides[1], batch)) for _ in range(rounds)]
    return {
        "ratio": median(slow / fast for slow, fast in pairs),
        "textbook_slices_per_s": BATCH / median(slow for slow, _ in pairs),
        "ours_slices_per_s": BATCH / median(fast for _, fast in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--crop", type=int, default=160)
    options = parser.parse_args()
    detail = {
        f"width {width}": compare(width, options.crop, max(3, options.rounds * 16 // width))
        for width in (16, 64)
    }
    device = f"CPU {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    if options.json:
        ratios = {
            name: {"value": row["ratio"], "target": TARGET, "ok": row["ratio"] >= TARGET}
            for name, row in detail.items()
        }
        print(json.dumps({"device": device, "ratios": ratios, "detail": detail}, indent=2))
        return
    print(f"Adversarial step, crop {options.crop}, batch {BATCH}, {device}")
    print(f"{'':10} {'textbook':>10} {'ours':>10} {'ratio':>7}   (slices/s, median)")
    for name, row in detail.items():
        print(
            f"{name:10} {row['textbook_slices_per_s']:10.1f} {row['ours_slices_per_s']:10.1f} "
            f"{row['ratio']:7.2f}"
        )


if __name__ == "__main__":
    main()
