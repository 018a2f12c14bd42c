"""Pictures of volumes: contours, overlays, worst cases and thumbnails."""
