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
grep -q '"peak_memory_mb":[[:space:]]*[1-9]' out/compression_metadata.json || fail 'the metadata lack the peak memory'

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

# Keys that the program decided are no keys that the user set; a table without keys is left out.
python3 - <<'END' || fail 'keys that the user did not set are listed with those that differ'
import re
page = open("out/report.html").read()
tables = dict(re.findall(r"<caption>(Keys [^<]*)</caption>(.*?)</table>", page, re.S))
differ = next(rows for name, rows in tables.items() if name.startswith("Keys that differ"))
decided = next(rows for name, rows in tables.items() if name.startswith("Keys that the program decides"))
for key in "distill_teacher", "recompute", "target_compression_ratio":
    assert f"<code>{key}</code>" not in differ, key
assert "<code>target_compression_ratio</code>" in decided and "<code>seed</code>" not in decided
assert "<code>calibration_files</code>" in differ
END
"$PHASE4_REPORT" out out >log 2>&1 && ! grep -q '<caption>Keys that differ' comparison.html || fail 'a table of no keys'

# Whether the runs were evaluated on the same windows: another seed draws others from the text.
head -c 4800 ids.bin >other.bin
quick=("${off[@]}" enable_fine_tuning=false reconstruct=false)
"$PHASE4_MPI" cfg.json "${quick[@]}" output_path=same >log 2>&1 || fail 'the run on the same windows'
"$PHASE4_MPI" cfg.json "${quick[@]}" output_path=text 'eval_files=["other.bin"]' >log 2>&1 || fail 'the run on another text'
"$PHASE4_MPI" cfg.json "${quick[@]}" output_path=windows calibration_sequence_length=10 >log 2>&1 || fail 'the run on other windows'
# warnings COUNT DIRECTORY: the comparison with it has so many, beside the verdicts and beside the curves.
warnings() {
    "$PHASE4_REPORT" out "$2" >log
    [ "$(grep -c 'class="warning"' comparison.html)" = "$1" ] || fail "expected $1 warnings in the comparison of out and $2"
}
warnings 0 same
for other in 'b<i>' text windows; do
    warnings 2 "$other"
    grep -q 'not evaluated on the same windows' comparison.html || fail "the warning about $other does not say why"
done

# A run that was stopped is no failed one; before it is continued its page has what it logged.
"$PHASE4_MPI" cfg.json "${off[@]}" output_path=stopped max_minutes=1e-9 >log 2>&1 && fail 'a run without time' || [ $? = 75 ] || fail 'the run is not stopped'
"$PHASE4_REPORT" stopped >log
grep -q 'class="verdict way"' stopped/report.html && grep -q '</span> Stopped</h2>' stopped/report.html || fail 'the page of a stopped run'

"$PHASE4_REPORT" -o both.html out 'b<i>' >log && [ -s both.html ] || fail 'option -o'

# Any number of runs, and an option behind them.
many=()
for i in $(seq 300); do many+=(same); done
[ "$("$PHASE4_REPORT" "${many[@]}" -o many.html)" = many.html ] || fail 'no comparison of 300 runs'
grep -q 'of 300 runs passed' many.html || fail 'the comparison has not all of 300 runs'

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
