"""TIMIT's core test speakers and the development speakers of Kaldi's recipe, by dialect region.

The core test set (two men and one woman a region) is that of the corpus's documentation (testset.doc); the 50
development speakers are those that Kaldi's recipe (egs/timit/s5) takes from the rest of TEST.
"""

NUM_TRAIN = {
    "dr1": 38,
    "dr2": 76,
    "dr3": 76,
    "dr4": 68,
    "dr5": 70,
    "dr6": 35,
    "dr7": 77,
    "dr8": 22,
}  # 462 speakers
CORE_TEST = {
    "dr1": "mdab0 mwbt0 felc0".split(),
    "dr2": "mtas1 mwew0 fpas0".split(),
    "dr3": "mjmp0 mlnt0 fpkt0".split(),
    "dr4": "mlll0 mtls0 fjlm0".split(),
    "dr5": "mbpm0 mklt0 fnlp0".split(),
    "dr6": "mcmj0 mjdh0 fmgd0".split(),
    "dr7": "mgrt0 mnjm0 fdhc0".split(),
    "dr8": "mjln0 mpam0 fmld0".split(),
}
DEV = {
    "dr1": "faks0 fdac1 fjem0 mjsw0 mreb0".split(),
    "dr2": "mgwt0 mjar0 mmdb1 mmdm2 mpdf0".split(),
    "dr3": "fcmh0 fkms0 mbdg0 mbwm0 mcsh0 mgjf0 mglb0 mmjr0 mmwh0 mrtk0 mtaa0 mtdt0 mthc0 mwjg0".split(),
    "dr4": "fadg0 fdms0 fedw0 fgjd0 fjmg0 fnmr0 frew0 fsem0 mbns0 mdls0 mroa0 mteb0".split(),
    "dr5": "fcal1 fmah0 mrws1".split(),
    "dr6": "fdrw0 mjfc0 mrjr0".split(),
    "dr7": "fmml0 mdlf0 mdvc0 mers0 mrcs0 mrjm4".split(),
    "dr8": "fjsj0 majc0".split(),
}
