"""The name of the score that training itself keeps its best epoch by."""

from typing import Final

SCORE: Final = "val/dice_mean"
