#!/usr/bin/env bash
# Trains the demo's model from random weights with phase4_mpi itself and puts it into jobs/demo/model, which
# is what ships. Run it after a change to the stories, the tokenizer or the model's shape.
#
#
#   jobs/demo/train_demo.sh [key=value ...]     keys of the configuration, which win over jobs/demo/train.json
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$(readlink -f "$0")")/../.."

# shellcheck source=jobs/demo/setup_demo.sh
. jobs/demo/setup_demo.sh
run_ranks 2 build/release/phase4_mpi jobs/demo/train.json "$@"
mkdir -p jobs/demo/model
for file in config.json tokenizer.json tokenizer_config.json model.safetensors; do
    cp build/demo/trained/dequantized_fp16/"$file" jobs/demo/model/
done
ls -l jobs/demo/model
