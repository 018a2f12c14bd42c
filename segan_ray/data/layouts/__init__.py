"""Which files of a folder are cases: BRATS in the layouts of its years and archives."""
