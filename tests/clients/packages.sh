# shellcheck shell=bash
# packages.sh: the Python packages of the tests in this folder, which source it. They stay in the build folder.

# client_packages NAME PACKAGE...: makes $PYTHON an interpreter that has them, in a virtual environment of this name. Where they
# cannot be installed the test is skipped (status 77) with the last line that pip printed.
client_packages() {
    local folder=$CLIENTS/$1
    shift
    PYTHON=$folder/bin/python
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$*" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        if ! { python3 -m venv "$folder" && "$PYTHON" -m pip install --quiet --disable-pip-version-check "$@"; } >"$folder.log" 2>&1; then
            echo "not run: pip cannot install $*: $(tail -n 1 "$folder.log")"
            exit 77
        fi
        echo "$*" >"$folder/installed"
    fi
}
