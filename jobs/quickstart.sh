#!/usr/bin/env bash
# Compresses the demo model on two ranks: installs packages, builds, generates the demo's stories, quantizes the
# shipped model to ternary weights, fine-tunes it and prints the verdict. The last four lines are text of the
# original, text of the ternary model, how to build the other programs and the path of the report. The exit
# status is 3 if the perplexity rose by more than the demo allows (10 %).
#
#   jobs/quickstart.sh [key=value ...]     keys that override those of jobs/demo/quickstart.json; a relative
#                                          output_path starts at the project's folder
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$(readlink -f "$0")")/.."

# shellcheck source=jobs/demo/setup_demo.sh
. jobs/demo/setup_demo.sh
if ! cmp -s build/demo/model/tokenizer.json jobs/demo/model/tokenizer.json; then
    echo "quickstart.sh: jobs/demo/model was trained with a different tokenizer than the one this build makes;" \
         "run jobs/demo/train_demo.sh to train it again" >&2
    exit 1
fi
status=0
output=build/demo/quickstart
for argument; do
    case $argument in output_path=*) output=${argument#output_path=} ;; esac
done
case $output in /*) ;; *) output=$PWD/$output ;; esac
run_ranks 2 build/release/phase4_mpi --strict jobs/demo/quickstart.json "$@" || status=$?
if [ "$status" = 0 ] || [ "$status" = 3 ]; then
    prompt='Once upon a time' # tells LABEL MODEL: its continuation, in one line
    tells() {
        echo "$1 $prompt$(build/release/phase4_generate --quiet --greedy --tokens 32 "$2" "$prompt" | tr '\n' ' ')"
    }
    echo 'docs/glossary.md explains the words above.'
    tells 'original:' jobs/demo/model
    tells 'ternary: ' "$output"
    echo 'cmake --build --preset release builds the other programs, such as phase4_inspect and phase4_evaluate.'
    echo "report:   $output/report.html"
fi
exit "$status"
