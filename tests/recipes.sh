#!/usr/bin/env bash
# recipes.sh SOURCE: checks the recipes for Spack and Apptainer with the programs that read them. Environment variables select what is
# checked; a line says what is not. A check that was selected and cannot be made is an error.
#
#   P4_SPACK=PATH           audits the package with this spack, 1.0 or newer, and resolves its dependencies, without and with CUDA, from the
#                           packages that this spack has.
#   P4_APPTAINER_BASE=FILE  builds the image without CUDA from an image file of Debian or Ubuntu, tests it, and runs two ranks in it.
#                           Not as root. The build takes packages from the distribution's mirror.
#
# Environment: TMP an empty folder.
set -eu
source=$(readlink -f "$1")
fail() {
    echo "recipes: $*" >&2
    exit 1
}

check_spack() {
    local folder=$source/packaging/spack/spack_repo/phase4
    # The user's own settings hold, and one more repository.
    mkdir "$TMP/spack"
    printf 'repos:\n  phase4: %s\n' "$folder" >"$TMP/spack/repos.yaml"
    "$P4_SPACK" -C "$TMP/spack" audit packages phase4 >"$TMP/spack.log" 2>&1 || fail "spack audit: $(cat "$TMP/spack.log")"
    for spec in phase4~cuda 'phase4+cuda cuda_arch=80,90'; do
        # shellcheck disable=SC2086 # two arguments
        "$P4_SPACK" -C "$TMP/spack" spec $spec >"$TMP/spack.log" 2>&1 || fail "spack spec $spec: $(cat "$TMP/spack.log")"
    done
    echo "recipes: Spack $("$P4_SPACK" --version): phase4~cuda and phase4+cuda can be installed"
}

check_apptainer() {
    local version log=$TMP/apptainer.log sif=$TMP/phase4.sif demo=/opt/phase4/share/phase4/demo
    version=$(sed -n 's/^project(phase4 VERSION \([0-9.]*\).*/\1/p' "$source/CMakeLists.txt")
    # The working tree with what is not committed yet.
    git -C "$source" ls-files -z | tar -C "$source" --null --verbatim-files-from -T - --transform "s,^,phase4-$version/," -czf "$TMP/source.tar.gz"
    apptainer build --build-arg bootstrap=localimage --build-arg build_from="$P4_APPTAINER_BASE" --build-arg run_from="$P4_APPTAINER_BASE" \
        --build-arg cuda=OFF --build-arg source="$TMP/source.tar.gz" "$sif" "$source/packaging/apptainer/phase4.def" >"$log" 2>&1 ||
        fail "apptainer build: $(tail -30 "$log")"
    apptainer test "$sif" >"$log" 2>&1 || fail "apptainer test: $(tail -30 "$log")"
    mkdir "$TMP/ranks"
    (
        cd "$TMP/ranks"
        apptainer exec "$sif" phase4_demo .
        apptainer exec "$sif" mpirun -n 2 --bind-to none phase4_mpi "$demo/quickstart.json" model_path="$demo/model" output_path=out \
            calibration_files=stories-train.jsonl train_files=stories-train.jsonl eval_files=stories-valid.jsonl \
            calibration_samples=8 calibration_sequence_length=64 eval_samples=4 reconstruct=false fine_tune_max_steps=2 warmup_steps=1
    ) >"$log" 2>&1 || fail "two ranks in the image: $(tail -30 "$log")"
    grep -q '^2 ranks' "$log" || fail "two ranks in the image: $(head -30 "$log")"
    echo "recipes: $(apptainer --version): the image was built from $P4_APPTAINER_BASE and run, with two ranks as well"
}

if [ -z "${P4_SPACK:-}" ]; then
    echo 'recipes: P4_SPACK names no spack: the package was not checked'
else
    command -v "$P4_SPACK" >/dev/null || fail "P4_SPACK: \"$P4_SPACK\" is not a program"
    check_spack
fi
if [ -z "${P4_APPTAINER_BASE:-}" ]; then
    echo 'recipes: P4_APPTAINER_BASE names no image file: the image was not built'
else
    [ -f "$P4_APPTAINER_BASE" ] || fail "P4_APPTAINER_BASE: \"$P4_APPTAINER_BASE\" is not a file"
    command -v apptainer >/dev/null || fail 'P4_APPTAINER_BASE is set, but apptainer is not installed'
    [ "$(id -u)" != 0 ] || fail 'P4_APPTAINER_BASE is set, but this is root, for whom mpirun refuses to start: run this as another user'
    P4_APPTAINER_BASE=$(readlink -f "$P4_APPTAINER_BASE")
    check_apptainer
fi
