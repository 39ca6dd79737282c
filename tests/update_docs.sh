#!/usr/bin/env bash
# update_docs.sh PROGRAM [--check]: writes the configuration table that PROGRAM (the built test_config_api) prints between
# the markers of docs/configuration.md. With --check it changes nothing and fails when the page is out of date.
set -euo pipefail
page=$(dirname "$(readlink -f "$0")")/../docs/configuration.md
table=$("$1" --markdown)
for marker in begin end; do
    [ "$(grep -c "^<!-- table: $marker -->$" "$page")" = 1 ] ||
        { echo "docs/configuration.md: expected one line \"<!-- table: $marker -->\""; exit 1; }
done
new=$(awk -v table="$table" '
    /^<!-- table: end -->$/ {inside = 0}
    !inside {print}
    /^<!-- table: begin -->$/ {inside = 1; print table}' "$page")
if [ "${2:-}" = --check ]; then
    [ "$new" = "$(cat "$page")" ] || { echo "docs/configuration.md: its table differs from the code; run $0 $1"; exit 1; }
else
    printf '%s\n' "$new" >"$page"
fi
