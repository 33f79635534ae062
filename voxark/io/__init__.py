"""What voxark/tables.py stands on: streams, commands, atomic outputs, specifiers and the kinds of values."""
