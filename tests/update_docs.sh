#!/usr/bin/env bash
# update_docs.sh PROGRAM [--check]: writes what PROGRAM (the built test_config_api) prints between the markers of the pages: the
# configuration table in docs/configuration.md, the families of models in README.md; and the manual pages docs/NAME.1. With --check it
# changes nothing and fails when a page is out of date. Pages change only after PROGRAM has printed all of them: a program that fails
# leaves every page as it was.
set -euo pipefail
root=$(dirname "$(readlink -f "$0")")/..
[ $# -ge 1 ] || { echo "usage: $0 PROGRAM [--check]" >&2; exit 2; }
program=$1 check=${2:-}
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

printed() { # printed FILE OPTION: what PROGRAM OPTION prints, into FILE
    "$program" "$2" >"$1" </dev/null && [ -s "$1" ] ||
        { echo "$0: \"$program $2\" failed or printed nothing; expected the built test_config_api. No page was changed" >&2; exit 1; }
}
update() { # update PAGE NAME OPTION: what PROGRAM prints, between <!-- NAME: begin --> and <!-- NAME: end -->
    for marker in begin end; do
        [ "$(grep -c "^<!-- $2: $marker -->$" "$root/$1")" = 1 ] ||
            { echo "$1: expected one line \"<!-- $2: $marker -->\"" >&2; exit 1; }
    done
    printed "$new/text" "$3"
    awk -v name="$2" -v text="$new/text" '
        $0 == "<!-- " name ": end -->" {inside = 0}
        !inside {print}
        $0 == "<!-- " name ": begin -->" {inside = 1; while ((getline line < text) > 0) print line}' "$root/$1" >"$new/page"
    mkdir -p "$new/$(dirname "pages/$1")"
    mv "$new/page" "$new/pages/$1"
}

mkdir -p "$new/pages/docs"
printed "$new/programs" --programs
printed "$new/pages/docs/phase4_mpi.1" --man
while read -r name; do
    [[ $name == phase4_* ]] || { echo "$0: \"$program --programs\" printed \"$name\", expected names of programs" >&2; exit 1; }
    printed "$new/pages/docs/$name.1" "--man=$name"
done <"$new/programs"
update docs/configuration.md table --markdown
update README.md families --families

cd "$new/pages"
for page in README.md docs/*; do
    cmp -s "$page" "$root/$page" && continue
    [ "$check" != --check ] || { echo "$page differs from the code; run $0 PROGRAM" >&2; exit 1; }
    cat "$page" >"$root/$page"
done
