"""What two latent variables of speech segments know of factors such as speaker and phone, as numbers.

probes.py, purity.py, dci.py: of labelled segments. latents.py: how much the latents are used.
verification.py: speakers told apart by vectors of utterances. movement.py, transformations.py: how latents
answer to known changes of the audio. factors.py and splits.py make labels, groups and splits; measure.py puts
all together, report.py prints it.
"""
