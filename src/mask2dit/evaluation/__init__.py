"""Measuring films of several scenes, anyone's: what is seen in them, what each metric makes of that, tables and reports.

Extractors are passed in: networks of `mask2dit.extractors`, or anything with their signature. Nothing here makes a film.
"""
