"""The data side of training: clips with captions, in consecutive groups, from files, from shards or from the playhouse.

`scenes` says what a clip and a source of clips are, `files`, `shards` and `playhouse` are the sources, `decoding` turns a stretch of
video into frames, `report` keeps account of what could not be used. Nothing here knows of latents, batches or models.
"""
