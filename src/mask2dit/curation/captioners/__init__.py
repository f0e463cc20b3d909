"""Who writes the captions. `mask2dit.curation.captioners.base` says what they all do; each lives in a file of its own."""
