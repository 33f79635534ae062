"""End-to-end verification: batches, extractors, scorers, losses and exact gradients in bounded memory."""
