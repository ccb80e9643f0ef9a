"""What torch wrote before its zip archives: pickles with the storages after them, and before that tar archives."""
