#!/usr/bin/env bash
# Compresses the demo model with the installed program, on one rank. The stories are made in FOLDER, and the results are in
# FOLDER/out.
#
#   share/phase4/demo/demo.sh [FOLDER [key=value ...]]     FOLDER is phase4-demo; keys override those of quickstart.json
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
bin=$(readlink -f "$here/../../../bin")
folder=${1:-phase4-demo}
[ $# = 0 ] || shift
mkdir -p "$folder"
cd "$folder"
if ! [ -e model/config.json ]; then # the last file that it writes
    "$bin/phase4_demo" .
fi
exec "$bin/phase4_mpi" "$here/quickstart.json" model_path="$here/model" output_path=out calibration_files=stories-train.jsonl \
    train_files=stories-train.jsonl eval_files=stories-valid.jsonl "$@"
