"""Pictures of epochs: each once in MLflow at its step, whatever becomes of the process."""

from __future__ import annotations

import io
from collections import Counter

from mlflow import MlflowClient
from PIL import Image

from segan_ray.config import Experiment
from segan_ray.home import Home
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.outbox import Record
from tests.unit.tracking.test_recorder import METRIC, killed, opened, runs


def png(shade: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(content, "PNG")
    return content.getvalue()


def shown(client: MlflowClient, run: str) -> Counter[tuple[str, int]]:
    """Return how often there is a whole picture of each key and step."""
    paths = [item.path for item in client.list_artifacts(run, "images")]
    parts = [path.removeprefix("images/").split("+") for path in paths if path.endswith(".png")]
    return Counter((key, int(step)) for key, _, step, *_ in parts)


def test_each_epoch_has_its_picture_at_its_step(home: Home) -> None:
    recorder = opened(home)
    recorder.start_trial("000", Experiment(), {})
    for epoch in (1, 2, 3):
        picture = None if epoch == 2 else png(epoch)
        recorder.log_epoch("000", epoch, {METRIC: 0.1 * epoch}, picture=picture)
    recorder.end_trial("000", "completed", None, None)
    recorder.close("finished")
    run = runs(home)["000"].info.run_id
    assert shown(connect(home), run) == {("validation", 1): 1, ("validation", 3): 1}
    assert not (home.sweeps / "s" / "pictures").exists()


def test_pictures_of_folds_are_rows_of_their_own(home: Home) -> None:
    recorder = opened(home)
    recorder.start_trial("000", Experiment(), {})
    metrics = {"fold/0/val/dice_mean": 0.5, "time/epoch_s": 1.0}
    recorder.log_epoch("000", 1, metrics, fold=(0, 1), picture=png(1))
    later = {"fold/1/val/dice_mean": 0.6, "time/epoch_s": 1.0}
    recorder.log_epoch("000", 2, later, fold=(1, 1), picture=png(2))
    recorder.close("finished")
    client, run = connect(home), runs(home)["000"].info.run_id
    assert shown(client, run) == {("fold 0 validation", 1): 1, ("fold 1 validation", 1): 1}
    # Their curves lie above one another; what is no fold's goes on.
    steps = {
        name: [point.step for point in client.get_metric_history(run, name)]
        for name in (*metrics, *later)
    }
    assert steps == {
        "fold/0/val/dice_mean": [1], "fold/1/val/dice_mean": [1], "time/epoch_s": [1, 2],
    }  # fmt: skip


def test_a_picture_that_waits_is_logged_at_the_next_resume_and_never_twice(home: Home) -> None:
    recorder = opened(home)
    recorder.start_trial("000", Experiment(), {})
    recorder.log_epoch("000", 1, {METRIC: 0.1}, picture=png(1))
    killed(recorder)
    # As if the process had died between MLflow's answer and its note of it.
    facts = {"epoch": 1, "metrics": {METRIC: 0.1}, "tags": {}, "picture": "000-0001.png"}
    waiting = recorder.writer.pictures
    waiting.put("000", 1, png(1))
    recorder.writer.apply(
        [Record("start", "000", 1, {"params": {}, "settings": {}, "repeat_of": None})]
    )
    recorder.writer.apply([Record("epoch", "000", 2, facts)])
    assert not list(waiting.folder.iterdir())
    waiting.put("000", 1, png(1))
    recorder.writer.apply([Record("epoch", "000", 2, facts)])
    # One that is gone is left out.
    recorder.writer.apply([Record("epoch", "000", 2, {**facts, "picture": "000-0009.png"})])
    again = opened(home, resume=True)
    again.close("finished")
    run = runs(home)["000"].info.run_id
    assert shown(connect(home), run) == {("validation", 1): 1}


def test_a_name_leads_nowhere_else(home: Home) -> None:
    recorder = opened(home)
    secret = home.folder / "secret.png"
    secret.write_bytes(png(7))
    client = connect(home)
    recorder.start_trial("000", Experiment(), {})
    recorder.close("finished")
    run = runs(home)["000"].info.run_id
    recorder.writer.pictures.log(client, run, "../../../secret.png", 1, 1, None)
    assert shown(client, run) == {}
    assert secret.exists()
