# shellcheck shell=bash disable=SC2154  # the variables are those of recipe_lib.sh
# The stage of recipe_lib.sh that asks what the latent variables of an FHVAE know: probes, pictures, voices exchanged.

# latent_run <log> <command...>: a job, on a cluster not on the machine that one logs in to.
latent_run() {
  $cmd "$dir/fhvae_segments/log/$1.log" "${@:2}"
}

# What z1 and z2 know of the labels that the test data have: a table, and pictures.
stage_latent() {
  local out=$dir/fhvae_segments
  rm -rf "$dir"/fhvae_{figures,converted}
  mkdir -p "$dir/fhvae_figures"
  extract_fhvae.sh --nj "$nj" --cmd "$cmd" --gpu "$gpu" --what "z1 z2 z1_var z2_var mu1 mu2" --segment-shift 10 \
    "$dir/fhvae" "$data/test_fbank" "$out"
  rm -f "$out"/{disentanglement.txt,tsne.svg}
  latent_labels
  if has_module sklearn; then
    latent_run measure measure-disentanglement --utt2spk="$data/test/utt2spk" --factors="$factors" \
      ${versions[@]+"${versions[@]}"} ${ctm[@]+"${ctm[@]}"} --segment-shift=10 \
      --z1-var="scp:$out/z1_var.scp" --z2-var="scp:$out/z2_var.scp" "scp:$out/z1.scp" "scp:$out/z2.scp" \
      \> "$out/disentanglement.txt.partial"
    mv "$out/disentanglement.txt.partial" "$out/disentanglement.txt"
  else
    echo "$0: WARNING: z1 and z2 are not compared: that needs scikit-learn: pip install 'voxark[probe]'" >&2
  fi
  if has_module matplotlib; then
    latent_pictures
  else
    echo "$0: WARNING: no pictures of the latent space: they need matplotlib: pip install 'voxark[plot]'" >&2
  fi
  latent_voices
}

# Sets factors, versions, ctm and tables: which labels there are, as the programs take them.
latent_labels() {
  local name
  factors='' versions=() ctm=() tables=("$data/test/utt2spk")
  for name in noise mic; do
    if [ -s "$labels/utt2$name" ]; then
      factors+=${factors:+,}$name=$labels/utt2$name
      tables+=("$name=$labels/utt2$name")
    fi
  done
  # The same sentence in other noise on both sides of a split would be told by its words.
  if [ -s "$labels/utt2uniq" ]; then versions=(--utt2uniq="$labels/utt2uniq"); fi
  if [ -s "$labels/phones.ctm" ]; then
    ctm=(--ctm="phone=$labels/phones.ctm,phone class=$labels/phones.ctm"
      --ctm-map="phone class=$ctm_map${phone_map:+,phone=$phone_map}")
    tables+=("phone class=$labels/phones.ctm")
  fi
}

latent_pictures() {
  local out=$dir/fhvae_segments figures=$dir/fhvae_figures num_a num_b
  if has_module sklearn; then
    latent_run tsne plot-fhvae --max-points=1000 --segment-shift=10 --ctm-map="$ctm_map" --seed="$seed" tsne \
      "$out/tsne.svg" "scp:$out/z1.scp" "scp:$out/z2.scp" "${tables[@]}"
  fi
  num_b=$(awk 'END { print NR < 3 ? NR : 3 }' "$data/test/spk2utt") # rows and columns, fewer of a small test set
  num_a=$(awk -v b="$num_b" 'END { print NR - b < 8 ? NR - b : 8 }' "$data/test_fbank/feats.scp")
  latent_run recombination plot-fhvae --utt2label="$data/test/utt2spk" --num-a="$num_a" --num-b="$num_b" \
    --seed="$seed" recombination "$figures/recombination.svg" "$dir/fhvae" "scp:$data/test_fbank/feats.scp"
  latent_run training plot-fhvae training "$figures/training.svg" "$dir/fhvae"
}

# Four speakers, each with the voice of the next and with its own: of each the utterance nearest to four seconds.
latent_voices() {
  local out=$dir/fhvae_converted
  mkdir -p "$out"
  awk -v "speakers=$(wc -l <"$data/test/spk2utt")" 'NR == FNR { frames[$1] = $2; next }
    FNR > 1 && FNR <= int(speakers / 4) * made { next }
    made < 4 { best = ""; for (i = 2; i <= NF; i++) { d = frames[$i] - 400; if (d < 0) d = -d
        if ($i in frames && (best == "" || d < least)) { best = $i; least = d } }
      if (best != "") chosen[++made] = best }
    END { for (i = 1; i <= made; i++) print chosen[i], chosen[i], chosen[i % made + 1] }' \
    "$data/test_fbank/utt2num_frames" "$data/test/spk2utt" >"$out/utt2utt"
  latent_run convert convert-fhvae --wav="$out" --fbank-config="$fbank_config" "$dir/fhvae" \
    "scp:$data/test_fbank/feats.scp" "ark:$out/utt2utt" "ark,scp:$out/feats.ark,$out/feats.scp"
}
