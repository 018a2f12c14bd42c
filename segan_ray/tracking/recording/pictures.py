"""Pictures of epochs: files beside the outbox until MLflow has them.

::

    SWEEP/pictures/000-0007.png    of trial 000 after epoch 7
"""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from PIL import Image

from segan_ray.filesystem.atomic_files import write_bytes, writing

FOLDER: Final = "pictures"
KEY: Final = "validation"
"""What MLflow calls the row of pictures through whose steps its UI slides."""
IMAGES: Final = "images"
"""The folder of such pictures among the artifacts of a run, as MLflow names it."""


@dataclass(frozen=True)
class WaitingPictures:
    """The pictures of one sweep that MLflow does not have yet."""

    folder: Path

    def put(self, trial: str, epoch: int, png: bytes) -> str:
        """Write a picture, and return its name here.

        Raises:
            StoreError: if the disk does not take it.
        """
        path = self.folder / f"{trial}-{epoch:04d}.png"
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, png)
        return path.name

    def log(
        self, client: MlflowClient, run: str, name: str, step: int, at_ms: int, fold: int | None
    ) -> None:
        """Give a picture to MLflow, unless it has it, and forget it here."""
        path = self.folder / Path(name).name
        key = KEY if fold is None else f"fold {fold} {KEY}"
        if not path.is_file():
            return
        if not _has(client, run, key, step):
            picture = Image.open(io.BytesIO(path.read_bytes()))
            client.log_image(run, picture, key=key, step=step, timestamp=at_ms, synchronous=True)
        path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget what is left: pictures whose records were refused or lost."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _has(client: MlflowClient, run: str, key: str, step: int) -> bool:
    # The name that MLflow gives a picture has a random part. Its separator was % once.
    named = re.compile(rf"{IMAGES}/{re.escape(key)}[+%]step[+%]{step}[+%]")
    return any(named.match(entry.path) for entry in client.list_artifacts(run, IMAGES))
