#!/usr/bin/env bash
# From embedding files to scores by the command line alone.
# Run: examples/command_line.sh FOLDER    with clip_image.npy, clip_text.parquet, clap_audio.npy, clap_text.parquet, pairs.csv
# in it: the texts of both under the same ids, pairs.csv with the columns query_id,gallery_id.
set -euo pipefail
cd "${1:?the folder with the files}"

isthmus import clip_image.npy --into clip.space --modality image
isthmus import clip_text.parquet --into clip.space --modality text --ids id
isthmus import clap_audio.npy --into clap.space --modality audio
isthmus import clap_text.parquet --into clap.space --modality text --ids id

# are they healthy, and do they agree on the texts they share?
isthmus inspect clip.space clap.space --via text

# a second without training, and the trained bridge
isthmus extend clip.space clap.space --via text --method dictionary --out quick.bridge --overwrite
isthmus extend clip.space clap.space --via text --out trained.bridge --overwrite

for bridge in quick trained; do
    isthmus evaluate "$bridge.bridge" --query clap.space/audio --gallery clip.space/image --pairs pairs.csv \
        --json >"$bridge.json"
done
isthmus search trained.bridge --id clap.space/audio/0 --gallery clip.space/image -k 3
