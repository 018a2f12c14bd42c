"""Whole files, locks, kinds of disks, and locations: a folder or a URL."""
