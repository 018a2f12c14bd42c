"""Finding the cases of a BRATS folder, in the layouts of its years and archives."""
