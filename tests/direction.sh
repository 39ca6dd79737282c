#!/usr/bin/env bash
# The direction rule: which header may be included where, which size a file and a function may have.
#
#   jobs -> { src core, io, dist, kernels } -> leaf;   src core -> kernels/ops.h;   io -> src core headers, dist/dist.h
#
# Foreign headers have one room each (the table `foreign`). `#if P4_CUDA` stands in the two backend lists only.
set -u
export LC_ALL=C
cd "${1:-$(dirname "$(readlink -f "$0")")/..}" || exit 1
broken=0
complain() {
    printf '%s\n' "$*"
    broken=$((broken + 1))
}

leaf='phase4.h base.h tensor.h arena.h rng.h import.h'
core=$(cd src && ls ./*.h | sed 's|.*/||')
io=$(ls io/*.h 2>/dev/null | sed 's|.*/||')
dist=$(ls dist/*.h 2>/dev/null | sed 's|.*/||')
kernels=$(ls kernels/*.h kernels/*.cuh 2>/dev/null | sed 's|.*/||')
jobs=$(find jobs -name '*.h' | sed 's|.*/||')

# allowed FILE: the project headers that it may include, as one line of names.
allowed() {
    case $1 in
    src/base.[ch] | src/tensor.[ch] | src/arena.[ch] | src/rng.[ch] | src/import.[ch] | src/progress.c | src/phase4.h) echo $leaf ;;
    src/*) echo $leaf $core ops.h ;;
    kernels/*) echo $leaf $kernels ;;
    dist/*) echo $leaf $dist ;;
    io/*) echo $leaf $core $io dist.h ;;
    jobs/*) echo $leaf $core $io $dist $kernels $jobs ;;
    esac
}

# Foreign headers: pattern of the header, then patterns of the files that may include it.
foreign=(
    'mpi.h|dist/*'
    'nccl.h|dist/coll_nccl.c dist/nccl_import.c'
    'hdf5*.h|io/h5*.c'
    'cJSON.h|io/*' 'cjson/cJSON.h|io/*'
    'pcre2.h|io/* jobs/demo/*' 'zlib.h|io/*' 'zstd.h|io/*' 'utf8proc.h|io/*' 'archive*.h|io/*'
    'omp.h|kernels/*' 'cblas.h|' '*mmintrin.h|kernels/*'
    'cuda*.h|kernels/*.cu kernels/*.cuh dist/coll_nccl.c dist/coll_nccl_peers.c' 'cublas*.h|kernels/*.cu kernels/*.cuh'
)

fits() { # fits TEXT PATTERN...: does one of the patterns match?
    local text=$1 pattern
    shift
    for pattern in "$@"; do
        # shellcheck disable=SC2254
        case $text in $pattern) return 0 ;; esac
    done
    return 1
}

set -f # patterns above are for `case`, never for file names
check_includes() {
    local file=$1 line header row
    while IFS=: read -r line header; do
        if [[ $header =~ ^[[:space:]]*\#[[:space:]]*include[[:space:]]*\"([^\"]+)\" ]]; then
            fits "${BASH_REMATCH[1]##*/}" $(allowed "$file") ||
                fits "${BASH_REMATCH[1]}" cJSON.h cjson/cJSON.h ||
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
