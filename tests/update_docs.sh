#!/usr/bin/env bash
# update_docs.sh PROGRAM [--check]: writes what PROGRAM (the built test_config_api) prints between the markers of the pages: the
# configuration table in docs/configuration.md, the families of models in README.md; and the manual pages docs/NAME.1. With --check it changes nothing and fails
# when a page is out of date.
set -euo pipefail
root=$(dirname "$(readlink -f "$0")")/..
update() { # update PAGE NAME TEXT [--check]: TEXT between <!-- NAME: begin --> and <!-- NAME: end -->
    local page=$root/$1 new
    for marker in begin end; do
        [ "$(grep -c "^<!-- $2: $marker -->$" "$page")" = 1 ] ||
            { echo "$1: expected one line \"<!-- $2: $marker -->\""; exit 1; }
    done
    new=$(awk -v name="$2" -v text="$3" '
        $0 == "<!-- " name ": end -->" {inside = 0}
        !inside {print}
        $0 == "<!-- " name ": begin -->" {inside = 1; print text}' "$page")
    if [ "${4:-}" = --check ]; then
        [ "$new" = "$(cat "$page")" ] || { echo "$1: its $2 differ from the code; run $0 PROGRAM"; exit 1; }
    else
        printf '%s\n' "$new" >"$page"
    fi
}
page() { # page NAME OPTION PROGRAM [--check]: the manual page that PROGRAM OPTION prints
    if [ "${4:-}" = --check ]; then
        cmp -s "$root/docs/$1.1" <("$3" "$2") || { echo "docs/$1.1 differs from the code; run $0 PROGRAM"; exit 1; }
    else
        "$3" "$2" >"$root/docs/$1.1"
    fi
}
page phase4_mpi --man "$1" "${2:-}"
for name in $("$1" --programs); do
    page "$name" "--man=$name" "$1" "${2:-}"
done
update docs/configuration.md table "$("$1" --markdown)" "${2:-}"
update README.md families "$("$1" --families)" "${2:-}"
