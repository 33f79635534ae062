"""The page's text: for each picture its section, title, what it shows for those who cannot see it, two
sentences, and the programs that it comes from. It holds for every seed and size of the data: no figures
in it.
"""

from voxark.report.page import Slide

TITLE = "GMM, EM, HMM, PLDA: a lecture in pictures"
INTRODUCTION = (
    "The pictures are drawn from files that voxark's programs wrote, on data that egs/lecture/run.sh makes. "
    "Colours and numbers name the components or states; ellipses are two standard deviations."
)

GMM, WHY, CHAIN, SPEAKERS = (
    "Gaussian mixtures",
    "Why EM climbs",
    "Hidden Markov models",
    "PLDA: a continuous latent variable",
)

SLIDES = (
    Slide(
        GMM,
        "01_mixture_1d",
        "The mixture to be learned",
        "A histogram of the data in one dimension, three weighted Gaussian curves, and their sum p(x)"
        " above them.",
        "A GMM is a sum of weighted Gaussians, <i>p</i>(<i>x</i>) = Σ<sub>c</sub> π<sub>c</sub> "
        "N(<i>x</i>; μ<sub>c</sub>, σ²<sub>c</sub>). The strokes at the bottom are the observations "
        "drawn from it, all that training will see.",
        "score-gmm",
    ),
    Slide(
        GMM,
        "02_mixture_2d",
        "A mixture in two dimensions",
        "Left a cloud of points; right the same points with lines of equal density and three "
        "component ellipses.",
        "With vectors, each component has a mean and a full covariance matrix, drawn as the ellipse "
        "of two standard deviations. Thin lines join points of equal <i>p</i>(<b>x</b>).",
        "score-gmm",
    ),
    Slide(
        GMM,
        "03_sampling",
        "The same mixture as a generative model",
        "A Bayesian network z to x, bars of the component weights, and observations coloured by their"
        " component.",
        "First a component <i>z</i> is drawn with probability π, then the observation from that "
        "component's Gaussian. Only the grey points of the last row are seen: <i>z</i> is latent, and"
        " has to be summed out.",
        "make_data.py",
    ),
    Slide(
        GMM,
        "04_viterbi",
        "Viterbi training, step by step",
        "Four iterations: above, points coloured by their likeliest component; below, ellipses moved "
        "to them.",
        "The Gaussians classify the data as if they were classes, then each is re-estimated from what"
        " it was given. Dashes are the ellipses before the step and arrows the moves of the means.",
        "train-gmm-em --training=viterbi, gmm-get-post",
    ),
    Slide(
        GMM,
        "05_em",
        "EM, step by step",
        "Four iterations: above, points in mixed colours of their posteriors; below, ellipses moved "
        "to the weighted means.",
        "The E-step shares each point out by the posteriors γ<sub>nc</sub> = "
        "<i>P</i>(<i>c</i>|<b>x</b><sub>n</sub>), hence the mixed colours between the components. The"
        " M-step computes weights, means and covariances with these shares as soft counts.",
        "train-gmm-em, gmm-get-post",
    ),
    Slide(
        GMM,
        "06_em_1d",
        "EM in one dimension",
        "Six panels from the start on: the model's density approaches the dashed one, "
        "responsibilities sharpen.",
        "The thick line is <i>p</i>(<i>x</i>) of the model, which approaches the dashed one from a "
        "bad start. The bands below are the responsibilities γ<sub>c</sub>(<i>x</i>) that the next "
        "M-step will use.",
        "train-gmm-em, gmm-get-post",
    ),
    Slide(
        WHY,
        "07_terms",
        "ln <i>p</i> = <i>Q</i> + <i>H</i> + <i>D</i><sub>KL</sub>",
        "Bars of Q, H and KL after each E-step and M-step reach ln p; bars of what each M-step gains.",
        "After an E-step <i>q</i> is the posterior, so <i>D</i><sub>KL</sub> = 0 and the bound "
        "<i>Q</i> + <i>H</i> is ln <i>p</i>. The M-step raises <i>Q</i>, leaves <i>H</i>, and opens "
        "<i>D</i><sub>KL</sub>: ln <i>p</i> gains both, more than <i>Q</i> alone.",
        "train-gmm-em --report-file",
    ),
    Slide(
        WHY,
        "08_bound",
        "The lower bound touches ln <i>p</i>",
        "ln p as a function of one mean, a curve of several hills, with a parabola for each E-step "
        "that touches it.",
        "Each E-step gives a bound L(<i>q</i>, μ) that touches ln <i>p</i> at the present μ (filled "
        "point); here it is a parabola, easy to maximise. Its top (ring) is the next μ, and ln "
        "<i>p</i> lies above it by <i>D</i><sub>KL</sub> (dots).",
        "make_bound.py, with voxark.gmm",
    ),
    Slide(
        WHY,
        "09_convergence",
        "EM and Viterbi training",
        "Curves of ln p and of the bound over the iterations for EM and for Viterbi training, and ln "
        "p of the truth.",
        "EM's ln <i>p</i> never falls, and its bound meets it at each E-step; Viterbi training raises"
        " its own bound, of one hard choice for each point, which stays below. A trained model may "
        "pass the dashed line: it fits these very data better than the model that they were drawn "
        "from.",
        "train-gmm-em --report-file, score-gmm",
    ),
    Slide(
        WHY,
        "10_optima",
        "Where EM ends depends on where it starts",
        "Curves of ln p for random starts, the best and the worst coloured, and the components of "
        "these two ends.",
        "EM finds a local maximum: the same data and the same five diagonal Gaussians, from different"
        " random means, may end in different places. Several starts and the best of them are the "
        "usual remedy.",
        "train-gmm-em --init=random-frames --srand",
    ),
    Slide(
        CHAIN,
        "11_hmm",
        "A left-to-right HMM",
        "Four states in a row with transition probabilities, a sequence coloured by states, the "
        "states' Gaussians.",
        "The latent variables of a sequence are a chain: each state stays or goes on, and emits from "
        "its Gaussian. The colours are the best path through the learned model; the strip has the "
        "states that the sequence was drawn from.",
        "train-hmm-em, align-hmm",
    ),
    Slide(
        CHAIN,
        "12_lattice",
        "Forward, backward, and both",
        "Three lattices of states over time: ln alpha, ln beta and gamma, with the best path as a line.",
        "α(<i>t</i>,<i>s</i>) sums all paths that arrive in a state, β(<i>t</i>,<i>s</i>) all that go"
        " on from it to the end; blank cells cannot be reached. Their product is the posterior "
        "γ<sub>s</sub>(<i>t</i>), which knows the past and the future.",
        "score-hmm --write-post, align-hmm; α and β: voxark.hmm",
    ),
    Slide(
        CHAIN,
        "13_hmm_em",
        "EM for an HMM",
        "From the start on: the states' Gaussians move to the dashed ones, and the posteriors over "
        "time sharpen.",
        "The E-step finds γ<sub>s</sub>(<i>t</i>) by forward-backward; the M-step is that of a GMM "
        "with these weights. States that begin almost alike find their part of the sequence, because "
        "the chain orders them.",
        "train-hmm-em, score-hmm --write-post",
    ),
    Slide(
        CHAIN,
        "14_hmm_terms",
        "The same three terms for the HMM",
        "Bars of Q, H and KL after each E-step and M-step of the HMM's training reach ln p.",
        "<i>H</i> is the entropy of whole paths: it shrinks as the model becomes sure of them. The "
        "identity is checked at every step, each term being computed without the others.",
        "train-hmm-em --report-file",
    ),
    Slide(
        SPEAKERS,
        "15_plda",
        "PLDA's model of speakers",
        "Left, some speakers' vectors around their means; right, learned and true ellipses of both "
        "covariances.",
        "A speaker is a point <b>z</b><sub>s</sub> drawn from the across-class Gaussian (dashed); "
        "each vector of theirs is drawn around it with the within-class covariance. Training sees "
        "only the vectors and whose they are, and finds both covariances.",
        "train-plda",
    ),
    Slide(
        SPEAKERS,
        "16_plda_em",
        "EM for PLDA",
        "From unit covariances on: the ellipses of both covariances reach the dashed, true ones.",
        "The latent variable is continuous, and sums become integrals: each speaker's "
        "<b>z</b><sub>s</sub> has a Gaussian posterior. Here EM starts with both covariances unit "
        "(one circle), as Kaldi's does; from moments of the data it would begin near its end.",
        "train-plda --kaldi-compat",
    ),
    Slide(
        SPEAKERS,
        "17_plda_terms",
        "The three terms for PLDA",
        "Bars of Q, H and KL after each E-step and M-step of PLDA's training reach ln p.",
        "The decomposition is the same with integrals for sums. <i>H</i> is a differential entropy "
        "now, which may be negative: then its bar goes down from <i>Q</i>.",
        "train-plda --kaldi-compat --report-file",
    ),
    Slide(
        SPEAKERS,
        "18_llr",
        "The same speaker or not",
        "Two maps of the log-likelihood ratio over the plane of test vectors, and histograms of both "
        "kinds of trials.",
        "The log-likelihood ratio compares one shared <b>z</b> with two independent ones; on the "
        "black line both are equally likely. Agreement far from the mean says more than agreement in "
        "the middle, where many speakers are.",
        "score-trials --backend=plda",
    ),
)
