#!/usr/bin/env bash
# packaging.sh BUILD SOURCE: installs the build into a fresh folder and uses it as a stranger would. The example
# program is built and run five ways: shared and static, through pkg-config and through CMake, and as C++. It compresses
# a model of the fixtures, with text that it writes itself. The shared library must
# export exactly what phase4.h declares.
set -eu
build=$1
source=$2
example=$source/tests/api_example.c
model=$source/tests/fixtures/models/llama-gqa
prefix=$TMP/prefix

fail() {
    echo "packaging: $*" >&2
    exit 1
}

cmake --install "$build" --prefix "$prefix" >"$TMP/install.log" || fail "cmake --install failed: $(tail -5 "$TMP/install.log")"
for file in include/phase4.h share/phase4/slurm/phase4.sbatch share/phase4/slurm/array.sbatch share/phase4/slurm/nightly.sbatch \
    share/doc/phase4/LICENSE share/phase4/README.md share/phase4/docs/running.md; do
    [ -s "$prefix/$file" ] || fail "$file was not installed"
done
for program in "$source"/jobs/phase4_*.c; do # each has its manual page
    name=$(basename "$program" .c)
    set -- "bin/$name" "share/man/man1/$name.1"
    for file; do
        [ -s "$prefix/$file" ] || fail "$file was not installed"
    done
done
# Programs that a manual page tells the reader to run are there.
named=$(sed 's/\\//g' "$prefix"/share/man/man1/*.1 | grep -oE '\bphase4_[a-z]+($|[^a-z_.])' | grep -oE 'phase4_[a-z]+' | sort -u)
for name in $named; do
    [ -x "$prefix/bin/$name" ] || fail "a manual page names $name, which was not installed"
done
[ -n "$named" ] || fail 'no manual page names a program'
# The demo runs where it is installed; this is a short form of it.
OMPI_MCA_ess_singleton_isolated=1 "$prefix/share/phase4/demo/demo.sh" "$TMP/demo" calibration_samples=8 eval_samples=4 fine_tune_max_steps=2 \
    calibration_sequence_length=64 reconstruct=false warmup_steps=1 >"$TMP/demo.log" 2>&1 || fail "the demo: $(tail -5 "$TMP/demo.log")"
[ -s "$TMP/demo/out/results.json" ] || fail 'the demo left no results.json'
"$prefix/bin/phase4_inspect" --quiet "$TMP/demo/out" || fail 'phase4_inspect does not verify what the demo left'
# The manual pages: as a reader of such pages takes them, where there is one.
if command -v groff >/dev/null; then
    for page in "$prefix"/share/man/man1/*.1; do
        said=$(groff -man -Tutf8 -ww "$page" 2>&1 >"$TMP/page")
        sed 's/.\x08//g' "$TMP/page" | grep -q 'SEE ALSO\|calibration_files' || fail "the manual page $page has no end"
        [ -z "$said" ] || fail "the manual page $page: $said"
    done
fi
lib=$(dirname "$(find "$prefix" -name libphase4.a)")
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")
[ "$(readelf -d "$lib/libphase4.so" | sed -n 's/.*soname: \[\(.*\)\]/\1/p')" = "libphase4.so.${version%%.*}" ] ||
    fail "libphase4.so lacks its soname libphase4.so.${version%%.*}"

# The recipes of packaging/ are of this version, and their languages can read them.
python3 - "$source/packaging" "$version" <<'END' || fail 'packaging/'
import ast, pathlib, sys
folder, version = pathlib.Path(sys.argv[1]), sys.argv[2]
spack = (folder / "spack/spack_repo/phase4/packages/phase4/package.py").read_text()
ast.parse(spack)
assert f'version("{version}")' in spack, "spack"
for path in folder.glob("easybuild/*.eb"):
    values = {"SOURCELOWER_TAR_GZ": "", "SYSTEM": ""}
    exec(path.read_text(), values)
    assert values["version"] == version and path.name.startswith(f"phase4-{version}-"), path
assert len(list(folder.glob("easybuild/*.eb"))) == 2
assert f"phase4-{version}" in (folder / "apptainer/phase4.def").read_text(), "apptainer"
assert (folder / "modulefiles/phase4" / version).is_file(), "modulefile"
END
"$source/tests/recipes.sh" "$source"
# Programs that happen to be in PATH are not used unless a variable selects the check. A check that was selected is never skipped.
mkdir "$TMP/other"
printf '#!/bin/sh\nexit 1\n' | tee "$TMP/other/spack" >"$TMP/other/apptainer"
chmod +x "$TMP/other/spack" "$TMP/other/apptainer"
refused() { # refused TEXT VARIABLE...
    mkdir "$TMP/refused"
    ! env P4_SPACK= P4_APPTAINER_BASE= TMP="$TMP/refused" PATH="$TMP/other:$PATH" "${@:2}" "$source/tests/recipes.sh" "$source" \
        >"$TMP/recipes.log" 2>&1 || fail "recipes.sh with ${*:2}: passed"
    grep -qF "$1" "$TMP/recipes.log" || fail "recipes.sh with ${*:2}: $(cat "$TMP/recipes.log")"
    rm -r "$TMP/refused"
}
P4_SPACK='' P4_APPTAINER_BASE='' PATH=$TMP/other:$PATH "$source/tests/recipes.sh" "$source" >"$TMP/recipes.log" 2>&1 ||
    fail "recipes.sh without variables: $(cat "$TMP/recipes.log")"
refused 'spack audit' P4_SPACK=spack
refused 'P4_SPACK: "no/spack" is not a program' P4_SPACK=no/spack
refused 'P4_APPTAINER_BASE: "no.sif" is not a file' P4_APPTAINER_BASE=no.sif
if [ "$(id -u)" = 0 ]; then
    refused 'this is root' P4_APPTAINER_BASE="$source/README.md"
else
    refused 'apptainer build' P4_APPTAINER_BASE="$source/README.md"
fi
# The packages for the image. A library that is missing, or that no package owns, is an error.
if dpkg-query -W libc6 >/dev/null 2>&1; then # Debian or Ubuntu
    packages=$source/packaging/apptainer/packages.sh
    "$packages" "$packages" /bin/sh >"$TMP/packages" || fail 'packages.sh /bin/sh'
    [ "$(cat "$TMP/packages")" = libc6 ] || fail "packages.sh /bin/sh: $(cat "$TMP/packages")"
    echo 'int answer(void) { return 42; }' >"$TMP/answer.c"
    echo 'int answer(void); int main(void) { return answer(); }' >"$TMP/question.c"
    gcc -shared -fPIC "$TMP/answer.c" -o "$TMP/libanswer.so"
    gcc "$TMP/question.c" -L"$TMP" -lanswer -Wl,-rpath,"$TMP" -o "$TMP/question"
    ! "$packages" "$TMP/question" >"$TMP/packages" 2>&1 || fail "packages.sh took a library of no package: $(cat "$TMP/packages")"
    grep -q 'no path found matching pattern .*/libanswer.so' "$TMP/packages" || fail "packages.sh: $(cat "$TMP/packages")"
    rm "$TMP/libanswer.so"
    ! "$packages" "$TMP/question" >"$TMP/packages" 2>&1 || fail "packages.sh took a missing library: $(cat "$TMP/packages")"
    grep -q 'libanswer.so => not found' "$TMP/packages" || fail "packages.sh: $(cat "$TMP/packages")"
fi

# The exported names, and what the header marks as public.
nm -D --defined-only "$lib/libphase4.so" | awk '{print $3}' | sort >"$TMP/exported"
cat "$prefix/include/phase4.h" "$prefix"/include/phase4/*.h | tr '\n' ' ' | grep -oE 'P4_PUBLIC [^;(]*\(' |
    sed -n 's/.*[ *]\(p4_[a-z0-9_]*\) *($/\1/p' | sort >"$TMP/declared"
[ -s "$TMP/declared" ] || fail "phase4.h declares no P4_PUBLIC function"
diff "$TMP/declared" "$TMP/exported" >"$TMP/diff" ||
    fail "phase4.h (<) and the exports of libphase4.so (>) differ: $(tr '\n' ' ' <"$TMP/diff")"

export PKG_CONFIG_PATH=$lib/pkgconfig
pc() { pkg-config "$@" phase4; }
[ "$(pc --modversion)" = "$version" ] || fail "phase4.pc says version $(pc --modversion)"
# shellcheck disable=SC2046
gcc -std=c11 -Wall -Werror "$example" -o "$TMP/pc_shared" $(pc --cflags --libs) -Wl,-rpath,"$lib"
# shellcheck disable=SC2046
g++ -x c++ -Wall -Wextra -Werror "$example" -o "$TMP/pc_cxx" $(pc --cflags --libs) -Wl,-rpath,"$lib"
# The static library: the same line with --static, where the linker finds no shared one.
mkdir "$TMP/static"
cp "$lib/libphase4.a" "$TMP/static"
# shellcheck disable=SC2046
gcc -std=c11 -Wall -Werror "$example" -o "$TMP/pc_static" -L"$TMP/static" $(pc --cflags --libs --static | sed "s|-L${prefix}[^ ]*||")

mkdir "$TMP/consumer"
cat >"$TMP/consumer/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C)
find_package(phase4 ${version%%.*} REQUIRED COMPONENTS static)
foreach(kind phase4 phase4_static)
  add_executable(cmake_\${kind} $example)
  target_link_libraries(cmake_\${kind} PRIVATE phase4::\${kind})
endforeach()
END
cmake -S "$TMP/consumer" -B "$TMP/consumer/build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" >"$TMP/cmake.log" 2>&1 &&
    cmake --build "$TMP/consumer/build" >>"$TMP/cmake.log" 2>&1 || fail "the CMake package: $(tail -20 "$TMP/cmake.log")"

for program in "$TMP/pc_shared" "$TMP/pc_cxx" "$TMP/pc_static" "$TMP"/consumer/build/cmake_phase4{,_static}; do
    mkdir "$TMP/run"
    (cd "$TMP/run" && "$program" "$model") >"$TMP/example.log" 2>&1 ||
        fail "$(basename "$program") ended with status $?: $(tail -5 "$TMP/example.log")"
    rm -rf "$TMP/run"
    shared=$(ldd "$program" | grep -c libphase4 || true)
    case $program in
    *static) [ "$shared" = 0 ] || fail "$program uses the shared library" ;;
    *) [ "$shared" = 1 ] || fail "$program does not use the shared library" ;;
    esac
done
echo "installed, built and run: pkg-config and CMake, shared and static, C and C++; $(wc -l <"$TMP/exported") functions exported"
