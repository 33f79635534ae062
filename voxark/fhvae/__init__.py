"""Factorized hierarchical variational autoencoders (FHVAE) [Hsu and Glass 2017, 2018]."""
