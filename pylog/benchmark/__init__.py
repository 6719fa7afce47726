"""`pylog bench`: what pylog does on the disk, and the machine, of whoever runs it.

Absolute figures, measured as a user's program would see them, with what was not synced beside
them. The ratios to yardsticks by which pylog itself is judged are another thing: they stand in the
repository's own bench, and nothing here uses it.
"""
