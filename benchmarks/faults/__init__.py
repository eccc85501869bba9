"""Inject faults on purpose: damaged and odd files, kills, full disks and I/O errors."""
