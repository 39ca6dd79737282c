#!/usr/bin/env bash
# glossary.sh: docs/glossary.md has a line for each word that a newcomer meets without an explanation, in alphabetical order, and
# README and the help lead there.
set -u
export LC_ALL=C
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
page=docs/glossary.md complaints=0
complain() {
    printf '%s\n' "$*"
    complaints=$((complaints + 1))
}
terms=$(sed -n '/^|---/,$s/^| \([^|]*[^ |]\) *|.*/\1/p' $page)
[ "$(wc -l <<<"$terms")" -gt 30 ] || complain "$page: has no table of words"
sorted=$(sort -f <<<"$terms")
[ "$terms" = "$sorted" ] || complain "$page: not in alphabetical order: $(diff <(echo "$terms") <(echo "$sorted") | sed -n 's/^[<>] //p' | head -n 1)"
repeated=$(tr ',' '\n' <<<"$terms" | sed 's/^ *//' | sort -f | uniq -di)
[ -z "$repeated" ] || complain "$page: explained twice:" $repeated

# What memory is for, in plans; words of README, the demo's output and the help of keys.
purposes=$(sed -n '/p4_purpose_names\[/,/};/p' src/plan.c | grep -o '"[a-z ]*"' | tr -d '"')
[ -n "$purposes" ] || complain "src/plan.c: no names of purposes"
has() { tr ',' '\n' <<<"$terms" | sed 's/^ *//' | grep -qixF -e "$1" -e "${1%s}"; }
for word in $purposes ternary trits scale codes masters teacher staging windows ranks perplexity KL distillation reconstruction calibration \
    gptq Muon Grokfast micro-batch epoch shard logits sparsity verdict recipe checkpoint STE; do
    has "$word" || complain "$page: lacks \"$word\""
done
# Words of the final table, of more than one word some of them.
for word in '95 % interval' 'agrees with the original' 'bits per byte' 'perplexity per word' nats embedding norms tensors 'relative error' \
    'gradient flow' 'compression ratio' 'learning rate' accuracy; do
    has "$word" || complain "$page: lacks \"$word\""
done
grep -qF '](docs/glossary.md)' README.md || complain "README.md: has no link to $page"
grep -qF "$page" jobs/cli.c jobs/phase4_mpi.c || complain "phase4_mpi --help does not name $page"
echo "$(wc -l <<<"$terms") words looked at, $complaints complaints"
[ $complaints = 0 ]
