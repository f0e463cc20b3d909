"""From long footage to scene groups with captions, as the second stage of training reads them (the paper's figure 4).

Each step is a file: pieces, shots, checks, groups, captions, reviews, export. A step reads the rows of those before it and writes its own;
`curating` runs them in order. Shots are the only step that decodes, but for the export, which writes the clips.
"""
