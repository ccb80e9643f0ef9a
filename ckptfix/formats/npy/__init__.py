"""The parts of numpy's files: the header of an array, and the archive of several."""
