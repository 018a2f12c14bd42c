"""Network and local disks, as Linux's list of mounts tells them apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from segan_ray.filesystem.disks import Mount, network_disk, network_kind, parse_mounts

LINES = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /tmp rw shared:5 - tmpfs tmpfs rw
41 22 0:44 / /mnt/shared\040data rw,relatime - nfs4 server:/export rw,vers=4.2
42 22 0:45 / /scratch rw - lustre 10.0.0.1@tcp:/lus rw
43 42 0:46 / /scratch/local rw - xfs /dev/nvme0n1 rw
a line of another kind
""".strip().splitlines()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/segan-ray-home/optuna.db", None),
        ("/tmp/x.db", None),
        ("/mnt/shared data/home/optuna.db", "nfs4"),
        ("/mnt/shared", None),
        ("/scratch/me/x.db", "lustre"),
        ("/scratch", "lustre"),
        ("/scratch/local/x.db", None),
        ("/scratching/x.db", None),
    ],
)
def test_the_kind_of_disk(path: str, kind: str | None) -> None:
    assert network_kind(Path(path), parse_mounts(LINES)) == kind


def test_the_last_of_several_mounts_at_one_point_counts() -> None:
    mounts = [Mount("/", "ext4"), Mount("/a", "nfs"), Mount("/a", "xfs")]
    assert network_kind(Path("/a/b"), mounts) is None
    assert network_kind(Path("/a/b"), mounts[:2]) == "nfs"
    assert network_kind(Path("/a/b"), []) is None


def test_a_disk_of_this_machine_is_local(tmp_path: Path) -> None:
    assert network_disk(tmp_path / "not" / "there" / "yet.db") is None
