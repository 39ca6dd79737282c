#!/usr/bin/env bash
# update_readme.sh PROGRAM [--check]: puts the configuration table that the code prints (PROGRAM is the built test_config_api)
# between the markers of README.md, or, with --check, says whether it is there already.
set -euo pipefail
readme=$(dirname "$(readlink -f "$0")")/../README.md
table=$("$1" --markdown)
new=$(awk -v table="$table" '
    /<!-- configuration: end -->/ {inside = 0}
    !inside {print}
    /<!-- configuration: begin -->/ {inside = 1; print table}' "$readme")
if [ "${2:-}" = --check ]; then
    [ "$new" = "$(cat "$readme")" ] || { echo "README.md: its configuration table is not the code's: run $0 $1"; exit 1; }
else
    printf '%s\n' "$new" >"$readme"
fi
