#!/usr/bin/env bash
# From embedding files to scores by the command line alone.
# Run: examples/command_line.sh FOLDER    with clip_image.parquet, clip_text.parquet, clap_text.parquet (columns id, embedding),
# clap_audio.npy and clap_audio_ids.txt, and pairs.csv (columns query_id,gallery_id); the texts of both under the same ids.
set -euo pipefail
cd "${1:?the folder with the files}"

isthmus import clip_image.parquet --into clip.space --modality image
isthmus import clip_text.parquet --into clip.space --modality text
isthmus import clap_audio.npy --into clap.space --modality audio --ids clap_audio_ids.txt
isthmus import clap_text.parquet --into clap.space --modality text

# are they healthy, and do they agree on the texts they share?
isthmus inspect clip.space clap.space --via text

# a second without training, and the trained bridge
isthmus extend clip.space clap.space --via text --method dictionary --out quick.bridge --overwrite
isthmus extend clip.space clap.space --via text --out trained.bridge --overwrite

for bridge in quick trained; do
    isthmus evaluate "$bridge.bridge" --query clap.space/audio --gallery clip.space/image --pairs pairs.csv \
        --json >"$bridge.json"
done
isthmus search trained.bridge --id clap.space/audio/sound-0 --gallery clip.space/image -k 3
