"""The forms in which the discriminative term can be computed; all give the same numbers."""

from voxark.errors import VoxarkError


def forms():
    """{name: function as voxark.fhvae.objective.sequence_log_posterior}."""
    from voxark.fhvae import objective as fhvae

    def plain(zbar2, mu2, pz2_var, rows):
        return fhvae.log_posterior_of_sequence(fhvae.sequence_logits(zbar2, mu2, pz2_var), rows)

    def naive(zbar2, mu2, pz2_var, rows):
        return fhvae.log_posterior_of_sequence(fhvae.naive_sequence_logits(zbar2, mu2, pz2_var), rows)

    return {"product": fhvae.sequence_log_posterior, "plain": plain, "naive": naive}


def form_of(name):
    """The function of a form; VoxarkError where there is none of this name."""
    found = forms()
    if name not in found:
        raise VoxarkError(f"'{name}' is no form of the discriminative term: there are {', '.join(found)}")
    return found[name]


def numbers_of(text, option):
    """The ascending numbers of "10,100,1000"; VoxarkError for anything else."""
    try:
        numbers = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise VoxarkError(f"{option}={text}: expected numbers with commas") from None
    if numbers[0] < 1:
        raise VoxarkError(f"{option}={text}: the numbers are at least 1")
    return numbers
