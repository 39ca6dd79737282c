#!/bin/sh
# Training speed side by side: phase4_bench and the peer take turns (ours, peer, ours, peer, ...) on the same
# machine, and the medians of the rounds are compared.
#
#   run_train_bench.sh BENCH_PROGRAM MODEL_DIR [ROUNDS] [OPTIONS...]
#
# BENCH_PROGRAM   the built phase4_bench
# MODEL_DIR       Hugging Face directory (docs-llama-8M's shapes are what the project quotes)
# ROUNDS          how often each runs, 3
# OPTIONS         go to both; none: --batch 4 --length 512 --threads 2 --steps 10 --quantizer exact
#                 --optimizer mugrokfast (without Grokfast). --teacher resident: the distilled step
# PYTHON          environment: the interpreter that has torch and transformers, python3
set -eu

here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 2 ]; then
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
bench=$1
model=$2
shift 2
rounds=3
case ${1:-} in
    [0-9]*) rounds=$1; shift ;;
esac
python=${PYTHON:-python3}
[ $# -gt 0 ] || set -- --batch 4 --length 512 --threads 2 --steps 10 --quantizer exact --optimizer mugrokfast

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/ours"
: >"$work/peer"

# Runs a command, shows its last line that names a rate, and appends the number before "tokens/s" to a file.
measure() {
    file=$1
    shift
    "$@" >"$work/out" 2>"$work/err" || { cat "$work/out" "$work/err" >&2; exit 1; }
    line=$(grep 'tokens/s' "$work/out" | tail -n 1)
    rate=$(printf ' %s\n' "$line" | sed -n 's/^.*[^0-9.]\([0-9][0-9.]*\) tokens\/s.*$/\1/p')
    [ -n "$rate" ] || { echo "no \"N tokens/s\" in the output of $1" >&2; exit 1; }
    printf '%s\n' "$line"
    printf '%s\n' "$rate" >>"$work/$file"
}

median() {
    sort -n "$1" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'
}

round=0
while [ "$round" -lt "$rounds" ]; do
    measure ours "$bench" train --device cpu --model "$model" "$@"
    measure peer "$python" "$here/peer_train.py" --model "$model" "$@"
    round=$((round + 1))
done
ours=$(median "$work/ours")
peer=$(median "$work/peer")
awk -v ours="$ours" -v peer="$peer" -v rounds="$rounds" -v options="$*" 'BEGIN {
    printf "train %s: ours %.1f, peer %.1f tokens/s (medians of %d rounds), ratio %.2f\n", \
           options, ours, peer, rounds, ours / peer }'
