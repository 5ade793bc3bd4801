"""Readers of source files: images, archives, FigShare, DICOM, NIfTI."""
