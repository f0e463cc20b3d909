"""The command line: one command per file, wiring only. Nothing here imports torch before a command needs it."""
