# shellcheck shell=bash disable=SC2034  # the recipe and recipe_lib.sh use them
# The options that all recipes of whole experiments share, and what --help says of them and of their stages. To be
# sourced before parse_options.sh by a recipe that has set root:
#
#   . "$root/utils/recipe_options.sh"
#   corpus=                                   # options of its own; other defaults of these
#   declare -r preset_folder=$here preset=small   # where the recipe has presets, files <name>.conf
#   help_message="Usage: $0 ... $recipe_stages_help $recipe_options_help"
#   . "$root/utils/parse_options.sh"
#   . "$root/utils/recipe_lib.sh"

dir=
seed=0
stage=1
stop_stage=100
force=false
dry_run=false
nj=2
# shellcheck disable=SC2154 # the recipe has set root
. "$root/utils/cmd.sh"
gpu=false
systems="gmm pooled ivector e2e fhvae"
mfcc_config=conf/mfcc.conf
fbank_config=conf/fbank.conf
vad_config=conf/vad.conf
num_gauss=0
num_iters=20
ivector_num_gauss=0
ivector_dim=0
lda_dim=0
lda_shrinkage=0.1
e2e_config=egs/mini/e2e.conf
e2e_opts=
fhvae_config=egs/mini/fhvae.conf
fhvae_opts=
fhvae_lda_dims=

printf -v recipe_command '%q ' "$0" "$@"
declare -r recipe_command=${recipe_command% }
declare -r recipe_stages_help="  2 MFCC            cepstra of all parts, for GMM, i-vectors and pooled vectors
  3 fbank           log mel energies, for the end-to-end network, the FHVAE and pooled vectors
  4 VAD, CMVN       which frames are speech, by their energy; statistics of means
  5 GMM             a universal background model by EM on the training part; by MAP a model of each enrolment (gmm)
  6 pooled vectors  mean and deviation of each utterance's frames: the simplest vectors (pooled)
  7 i-vectors       a full-covariance UBM, a total variability matrix by EM, i-vectors (ivector)
  8 LDA, PLDA       of the vectors, on the training speakers
  9 end to end      a network trained on pairs of training utterances; its embeddings (e2e)
  10 FHVAE          trained without labels; s-vectors mu2 of the utterances, their LDA and PLDA (fhvae)
  11 latent space   what z1 and z2 know of speaker, noise, microphone, phone: probes, t-SNE; recombined segments, voices
                    exchanged, as pictures and wavs
  12 scores         every system on all trials
  13 table          error rates of all systems: results.txt
  14 page           all of it as one page to look at: report.html
  A stage that has finished with the same input and options is skipped. What it prints goes to .stages/NAME.log."

declare -r recipe_options_help="  --dir DIR                 where everything goes
  --stage N, --stop-stage N first and last stage (default: all)
  --force                   run stages that have finished, too
  --dry-run                 only say what would be done: stages, what they read and make, sizes
  --nj N                    jobs at a time (default: $nj)
  --cmd LAUNCHER            how to run jobs: run.py, \"slurm.py --partition=long\", queue.py, or Kaldi's
                            (default: \$VOXARK_CMD or run.py)
  --train-cmd LAUNCHER      the same for the training of networks (default: \$VOXARK_TRAIN_CMD, or --cmd)
  --gpu                     train networks, and extract with them, on GPUs
  --systems \"NAME ...\"      which systems (default: $systems)
  --seed N                  of all random numbers (default: $seed)
  --mfcc-config, --fbank-config, --vad-config FILE   (default: conf/mfcc.conf, conf/fbank.conf, conf/vad.conf)
  --num-gauss N             Gaussians of the UBM (default: a power of two, 64 at most, by the size of the training set)
  --num-iters N             EM iterations of the UBM (default: $num_iters)
  --ivector-num-gauss N     Gaussians of the i-vectors' UBM with full covariances (default: as --num-gauss)
  --ivector-dim N           dimension of the i-vectors (default: the number of those Gaussians, 50 at most)
  --lda-dim N               (default: half the number of training speakers, 40 at most)
  --lda-shrinkage A         shrink the within-speaker covariance towards a multiple of the identity, 0 to 1
                            (default: $lda_shrinkage; LDA needs it with fewer utterances than dimensions)
  --e2e-config FILE         options of train-e2e-verif (default: $e2e_config)
  --e2e-opts OPTIONS        more of them, which win: such as --precision=bf16 where the processor has units for it
  --fhvae-config FILE       options of train-fhvae (default: $fhvae_config)
  --fhvae-opts OPTIONS      more of them, which win
  --fhvae-lda-dims \"N ...\"  score s-vectors behind LDA of so many dimensions, too, by their cosine (default: none)"
