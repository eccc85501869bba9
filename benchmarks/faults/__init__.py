"""Faults on purpose: damaged and odd files, kills, full disks and errors of reading and writing."""
