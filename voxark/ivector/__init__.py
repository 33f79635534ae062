"""i-vectors: Baum-Welch statistics, the total-variability model, its EM, Kaldi's form of it, extraction."""
