"""The networks of an experiment: the only module that knows which settings need which."""

from __future__ import annotations

from torch import nn

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.config import Experiment, SegmentorSettings
from segan_ray.models.authors import AuthorsSegmentor, authors_levels
from segan_ray.models.critic import CriticBank, JointCritic
from segan_ray.models.segmentor import Segmentor, SegmentorBank


def build_segmentor(experiment: Experiment) -> nn.Module:
    """Return the network that maps slices, with context slices, to region probabilities."""
    channels = len(MODALITIES) * (2 * experiment.data.neighbours + 1)
    if experiment.has_bank:
        return SegmentorBank(_network(experiment.segmentor, channels, 1) for _ in REGIONS)
    return _network(experiment.segmentor, channels, len(REGIONS))


def build_critic(experiment: Experiment) -> CriticBank | JointCritic | None:
    """Return the critic, or None for an experiment without."""
    settings = experiment.critic
    if settings.kind == "none":
        return None
    kind = CriticBank if settings.kind == "per-region" else JointCritic
    return kind(
        len(MODALITIES),
        len(REGIONS),
        takes=settings.input,
        depth=settings.depth,
        base_width=settings.base_width,
        norm=settings.norm,
        spectral_norm=settings.spectral_norm,
    )


def downsampling_levels(experiment: Experiment) -> int:
    """Return how often the deepest network halves its input."""
    segmentor, critic = experiment.segmentor, experiment.critic
    levels = authors_levels(segmentor.authors) if segmentor.network == "authors" else None
    return max(levels or segmentor.depth, 0 if critic.kind == "none" else critic.depth)


def _network(settings: SegmentorSettings, channels: int, regions: int) -> nn.Module:
    if settings.network == "segan":
        return Segmentor(
            channels,
            regions,
            depth=settings.depth,
            base_width=settings.base_width,
            concat_skips=settings.skip == "concat",
            full_resolution=settings.full_resolution,
        )
    if settings.network == "authors":
        return AuthorsSegmentor(
            channels, regions, published=settings.authors, base_width=settings.base_width
        )
    # MONAI takes long to import, and most runs do not need it.
    from segan_ray.models.baselines import build_baseline

    return build_baseline(
        settings.network, channels, regions, depth=settings.depth, base_width=settings.base_width
    )
