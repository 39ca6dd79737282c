#!/usr/bin/env bash
# links.sh [ROOT]: every file that the documentation names exists.
#
#   - the target of each relative Markdown link, and its heading where the link has an anchor
#   - each path that starts at a folder of the root, in `code spans` and in fenced blocks. NAME and * stand for anything;
#     {a,b} for several names; a path that ends in ":LINE" names a line
#   - each .md file that a comment of a source file names
set -u
export LC_ALL=C
cd "${1:-$(dirname "$(readlink -f "$0")")/..}" || exit 1
broken=0 looked_at=0
complain() {
    printf '%s\n' "$*"
    broken=$((broken + 1))
}

folders='src|kernels|dist|io|jobs|tests|slurm|docs|cmake|\.ci'
pages=$(find . -name '*.md' -not -path './build*' -not -path './.git/*' | sed 's|^\./||' | sort)
[ -n "$pages" ] || { echo "links.sh: no .md files in $PWD"; exit 1; }

# expand WORD: its {a,b} lists written out, one path a line.
expand() {
    local head rest
    if [[ $1 =~ ^([^{]*)\{([^{}]*)\}(.*)$ ]]; then
        head=${BASH_REMATCH[1]} rest=${BASH_REMATCH[3]}
        local IFS=, name
        for name in ${BASH_REMATCH[2]}; do
            expand "$head$name$rest"
        done
    else
        printf '%s\n' "$1"
    fi
}

# check_path PLACE WORD
check_path() {
    local path
    looked_at=$((looked_at + 1))
    while read -r path; do
        compgen -G "${path//NAME/*}" >/dev/null || complain "$1: \"$path\" does not exist"
    done < <(expand "${2%:[0-9]*}")
}

# anchors PAGE: the anchor of each heading, as Markdown viewers make it.
anchors() {
    awk '/^```/ {fenced = !fenced} !fenced && /^#+ / {
        sub(/^#+ /, ""); text = tolower($0); gsub(/[^a-z0-9 _-]/, "", text); gsub(/ /, "-", text); print text}' "$1"
}

# check_link PAGE LINE TARGET
check_link() {
    local file=${3%%#*} anchor=
    [[ $3 != *'#'* ]] || anchor=${3#*#}
    looked_at=$((looked_at + 1))
    case $1 in */*) [ -z "$file" ] || file=${1%/*}/$file ;; esac
    file=${file:-$1}
    if ! [ -e "$file" ]; then
        complain "$1:$2: the link to \"$3\" has no file $file"
    elif [ -n "$anchor" ] && ! anchors "$file" | grep -qxF -- "$anchor"; then
        complain "$1:$2: the link to \"$3\" has no heading #$anchor in $file"
    fi
}

# Lines of a page as KIND:LINE:TEXT. Kind L: the target of a link; C: a word of a code span or of a fenced block.
words() {
    awk '
        function code(text,   i, n, word) {
            gsub(/[|"'\''();=]/, " ", text)
            n = split(text, word, /[ \t]+/)
            for (i = 1; i <= n; i++) if (word[i] != "") print "C:" FNR ":" word[i]
        }
        /^```/ {fenced = !fenced; next}
        fenced {code($0); next}
        {
            rest = $0
            while (match(rest, /\]\([^)]*\)/)) {
                print "L:" FNR ":" substr(rest, RSTART + 2, RLENGTH - 3)
                rest = substr(rest, RSTART + RLENGTH)
            }
            n = split($0, span, "`")
            for (s = 2; s <= n; s += 2) code(span[s])
        }' "$1"
}

for page in $pages; do
    while IFS=: read -r kind line word; do
        if [ "$kind" = L ]; then
            [[ $word =~ ^(https?|mailto): ]] || check_link "$page" "$line" "$word"
        elif [[ ${word%[.,:]} =~ ^(($folders)/|[A-Z][A-Za-z]+\.(md|txt|json)$) ]]; then
            check_path "$page:$line" "${word%[.,:]}"
        fi
    done < <(words "$page")
done

sources=$(find src kernels dist io jobs tests slurm cmake CMakeLists.txt -type f \
    \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.sh' -o -name '*.sbatch' -o -name '*.cmake' -o -name CMakeLists.txt \))
while IFS=: read -r file line page; do
    [ "$file" = tests/links.sh ] || check_path "$file:$line" "$page"
done < <(grep -noE '(docs/[a-z_]+|CONTRIBUTING)\.md' $sources)

echo "$looked_at references of $(wc -w <<<"$pages") pages and the sources' comments looked at, $broken complaints"
[ "$broken" -eq 0 ]
