"""sptskm: long-term person re-identification from walking tracklets (SSIN, SMIN and their fusion)."""

__version__ = "0.2.0"
