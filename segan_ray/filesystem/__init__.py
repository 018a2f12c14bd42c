"""Files, folders and disks: written whole, locked, and named here or at a URL."""
