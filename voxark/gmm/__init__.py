"""Gaussian mixture models: the model, EM training, MAP adaptation, GMM-UBM scores."""
