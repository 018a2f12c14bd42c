"""``python -m segan_ray`` is the command ``segan-ray``."""

from segan_ray.cli.main import main

main()
