"""Writes and reads run directories and their checkpoints."""
