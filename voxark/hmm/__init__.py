"""Hidden Markov models whose states emit from Gaussian mixtures: algorithms on arrays, training, decoding."""
