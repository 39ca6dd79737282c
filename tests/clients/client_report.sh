#!/usr/bin/env bash
# report.html and a comparison in Chromium: nothing in the console, nothing loaded, no wider than a phone, and the rules of
# axe-core for who cannot see or point.
set -eu
cd "$TMP"
# shellcheck source=tests/watched_run.sh
. "$FIXTURES/../watched_run.sh"
here=$(dirname "$(readlink -f "$0")")
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$chromium" ]; then
    echo 'client_report: skipped: no chromium here (Debian: apt-get install chromium)'
    exit 77
fi
environment report playwright axe-playwright-python

watched_run
cat >samples.json <<'JSON'
{"samples": [{"prompt": "Once <b>upon</b>", "original": " a time", "ternary": " a mountain-without-any-space-in-a-very-long-word-indeed"}]}
JSON
for seed in 1 2; do
    "$PHASE4_MPI" cfg.json output_path=$seed seed=$seed checkpoint_every=0 wandb_enabled=false >log 2>&1 || fail "seed $seed"
done
cp samples.json 1
"$PHASE4_REPORT" 1 >log || fail 'no report'
"$PHASE4_REPORT" 1 2 >log || fail 'no comparison'
python=$CLIENTS/report/bin/python
"$python" "$here/report.py" "$chromium" 1/report.html comparison.html || fail 'the pages are not well'
