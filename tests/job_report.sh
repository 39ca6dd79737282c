#!/usr/bin/env bash
# phase4_report makes the page of a run again, as the run made it, and compares runs; what it cannot read it names.
set -eu
cd "$TMP"
# shellcheck source=tests/watched_run.sh
. "$FIXTURES/../watched_run.sh"
watched_run
off=(wandb_enabled=false tensorboard_enabled=false checkpoint_every=0)
"$PHASE4_MPI" cfg.json "${off[@]}" fine_tune_max_steps=40 >log 2>&1 || fail 'the first run'
"$PHASE4_MPI" cfg.json "${off[@]}" fine_tune_max_steps=40 output_path='b<i>' seed=7 >log 2>&1 || fail 'the second run'

# The same page but for the line that says when it was made, and the state of results.json.
cp out/report.html made_by_run.html
[ "$("$PHASE4_REPORT" out)" = out/report.html ] || fail 'it does not print the path of the page'
diff <(sed '/<footer>/d' made_by_run.html) <(sed '/<footer>/d' out/report.html) >log || fail 'the page differs from that of the run'
for section in quality training model activations size time configuration provenance; do
    grep -q "<section id=\"$section\"" out/report.html || fail "the page lacks $section"
done

[ "$("$PHASE4_REPORT" out 'b<i>')" = comparison.html ] || fail 'no comparison'
grep -q '2 of 2 runs passed\|1 of 2 runs passed\|0 of 2 runs passed' comparison.html || fail 'the comparison has no verdicts'
grep -q '<code>seed</code>' comparison.html || fail 'the comparison does not say that the seed differs'
if grep -q '<code>fine_tune_max_steps</code>' comparison.html; then fail 'a key with the same value is listed'; fi
grep -q 'b&lt;i&gt;' comparison.html || fail 'the second run is not named'
if grep -q '<i>' comparison.html; then fail 'a name became markup'; fi
"$PHASE4_REPORT" -o both.html out 'b<i>' >log && [ -s both.html ] || fail 'option -o'

# refused MESSAGE ARGUMENT...: status 2 and one line that ends with the message.
refused() {
    local message=$1 status=0
    shift
    "$PHASE4_REPORT" "$@" >log 2>&1 || status=$?
    [ $status = 2 ] || fail "$*: status $status, expected 2"
    [ "$(wc -l <log)" = 1 ] && grep -qF "$message" log || fail "$*: expected one line with \"$message\""
}
refused 'no directory is given'
refused 'unknown option "--html"' --html out
refused 'none/results.json' none
mkdir bad
echo '{"phase": "phase3"}' >bad/results.json
refused '"phase" is "phase3", expected "phase4_bitnet"' bad
refused 'cannot' -o none/there.html out
