"""Several segmentors used as one: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from segan_ray.brats import MODALITIES


class MeanOfSegmentors(nn.Module):
    """Maps slices to the mean of what each segmentor maps them to.

    Slices come with the context slices that the farthest-looking segmentor takes; the others get
    the middle of the stack.
    """

    def __init__(self, segmentors: Sequence[nn.Module], context_slices: Sequence[int]) -> None:
        """Join ``segmentors``, each of which takes so many ``context_slices`` on either side."""
        super().__init__()
        self.segmentors = nn.ModuleList(segmentors)
        most = max(context_slices)
        self._unused = [len(MODALITIES) * (most - taken) for taken in context_slices]

    def forward(
        self, image: Float[Tensor, "slice channel height width"]
    ) -> Float[Tensor, "slice region height width"]:
        """Return probabilities in single precision; the sum is rounded once, not at each step."""
        total: Tensor | None = None
        for segmentor, unused in zip(self.segmentors, self._unused, strict=True):
            seen = image[:, unused : image.shape[1] - unused] if unused else image
            probability = segmentor.forward(seen).float()
            total = probability if total is None else total + probability
        assert total is not None, "there is at least one segmentor"
        return total / len(self.segmentors)
