"""Features of speech: spectra, cepstra, and what is done to them frame by frame."""
