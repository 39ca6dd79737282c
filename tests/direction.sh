#!/usr/bin/env bash
# The direction rule: which header may be included where, which size a file and a function may have.
#
#   programs, jobs/api, jobs/stages -> jobs/train -> { src core, io, dist, kernels } -> src/leaf
#   src core -> kernels/ops.h;   io -> src core headers, dist/group.h;   engines know no configuration
#
# An include names a header by its path from the root. Foreign headers have one room each (the table `foreign`).
# `#if P4_CUDA` stands in the two backend lists only.
set -u
export LC_ALL=C
cd "${1:-$(dirname "$(readlink -f "$0")")/..}" || exit 1
broken=0
complain() {
    printf '%s\n' "$*"
    broken=$((broken + 1))
}

# allowed FILE: patterns of the project's headers that it may include.
allowed() {
    case $1 in
    src/leaf/*) echo 'src/leaf/*.h' src/phase4/rc.h ;;
    src/phase4.h) echo 'phase4/*.h' ;;
    src/phase4/*) echo rc.h types.h ;;
    src/*) echo 'src/*.h' kernels/ops.h ;;
    kernels/cpu/*) echo 'src/leaf/*.h' 'kernels/*.h' '!kernels/cuda/*' ;;
    kernels/*) echo 'src/leaf/*.h' 'kernels/*' '!kernels/cpu/*' ;;
    dist/*) echo 'src/leaf/*.h' 'dist/*.h' ;;
    io/*) echo 'src/*.h' 'io/*.h' dist/group.h ;;
    jobs/demo/*) echo 'src/leaf/*.h' 'jobs/demo/*.h' ;;
    jobs/train/*) echo 'src/*.h' 'io/*.h' 'dist/*.h' 'kernels/*.h' 'jobs/train/*.h' '!src/phase4/config.h' '!src/config.h' ;;
    jobs/stages/*) echo 'src/*.h' 'io/*.h' 'dist/*.h' 'kernels/*.h' 'jobs/*.h' '!jobs/api/*' ;;
    jobs/api/*) echo 'src/*.h' 'io/*.h' 'dist/*.h' 'kernels/*.h' 'jobs/*.h' '!jobs/stages/*' ;;
    jobs/*) echo 'src/*.h' 'io/*.h' 'dist/*.h' 'kernels/*.h' 'jobs/*.h' '!jobs/api/*' ;;
    esac
}

# Foreign headers: pattern of the header, then patterns of the files that may include it.
foreign=(
    'mpi.h|dist/*'
    'nccl.h|dist/*nccl*'
    'hdf5*.h|io/h5/*'
    'cJSON.h|io/*' 'cjson/cJSON.h|io/*'
    'pcre2.h|io/* jobs/demo/*' 'zlib.h|io/*' 'zstd.h|io/*' 'utf8proc.h|io/*' 'archive*.h|io/*'
    'sentencepiece.pb-c.h|io/tokenizer/*' 'wandb.pb-c.h|io/metrics/*' 'tensorboard.pb-c.h|io/metrics/*'
    'omp.h|kernels/*' 'cblas.h|' '*mmintrin.h|kernels/*'
    'cuda*.h|kernels/cuda/* kernels/sm90/* dist/*nccl*' 'cublas*.h|kernels/cuda/* kernels/sm90/*'
)

fits() { # fits TEXT PATTERN...: does one of the patterns match, and none of those behind a "!"?
    local text=$1 pattern found=1
    shift
    for pattern in "$@"; do
        # shellcheck disable=SC2254
        case $text in ${pattern#!}) [ "$pattern" = "${pattern#!}" ] || return 1; found=0 ;; esac
    done
    return $found
}

set -f # patterns above are for `case`, never for file names
check_includes() {
    local file=$1 line header row
    while IFS=: read -r line header; do
        if [[ $header =~ ^[[:space:]]*\#[[:space:]]*include[[:space:]]*\"([^\"]+)\" ]]; then
            fits "${BASH_REMATCH[1]}" $(allowed "$file") ||
                complain "$file:$line: \"${BASH_REMATCH[1]}\" is not for this room"
        fi
        if [[ $header =~ ^[[:space:]]*\#[[:space:]]*include[[:space:]]*[\<\"]([^\>\"]+)[\>\"] ]]; then
            for row in "${foreign[@]}"; do
                fits "${BASH_REMATCH[1]}" "${row%%|*}" && ! fits "$file" ${row#*|} &&
                    complain "$file:$line: ${BASH_REMATCH[1]} belongs in ${row#*|} only"
            done
        fi
    done < <(grep -nE '^[[:space:]]*#[[:space:]]*include' "$file")
}

files=$(find src io dist kernels jobs -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) | sort)
[ -n "$files" ] || { echo "direction.sh: no sources in $PWD"; exit 1; }
for file in $files; do
    check_includes "$file"
    fits "$file" kernels/ops.c dist/coll.c || while IFS=: read -r line _; do
        complain "$file:$line: P4_CUDA is for kernels/ops.c and dist/coll.c"
    done < <(grep -nE '^[[:space:]]*#[[:space:]]*(if|ifdef|ifndef|elif).*P4_CUDA' "$file")
    fits "$file" 'kernels/*' || while IFS=: read -r line _; do
        complain "$file:$line: OpenMP is for kernels/"
    done < <(grep -nE '^[[:space:]]*#[[:space:]]*pragma[[:space:]]+omp' "$file")
    # These two grow by more than one element, or something else beside the array.
    fits "$file" src/leaf/base.c io/text/windows.c io/tokenizer/adopt.c || while IFS=: read -r line _; do
        complain "$file:$line: p4_grow doubles an array"
    done < <(grep -nE '[a-z] = .*2 \* [*A-Za-z_>-]*capacity' "$file" | grep -v p4_resize)
done

# Sizes: a file up to 500 lines, a function up to 70 (from its own "{" in column 1 to "}"), tests as well.
for file in $files $(find tests -type f -name '*.[ch]' | sort); do
    lines=$(wc -l <"$file")
    [ "$lines" -le 500 ] || complain "$file: $lines lines, 500 are allowed"
    while read -r line length; do
        complain "$file:$line: a function of $length lines, 70 are allowed"
    done < <(awk '/^\{/ {start = FNR} /^\}/ && start {n = FNR - start; if (n > 70) print start, n; start = 0}' "$file")
done

echo "$(wc -w <<<"$files") source files looked at, $broken complaints"
[ "$broken" -eq 0 ]
