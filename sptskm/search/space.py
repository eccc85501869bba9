"""What a search varies is described in `sptskm/tuning/space.py`.

This file is for texts that still name the old path. It is no package, and nothing imports it.
"""
