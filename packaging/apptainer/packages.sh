#!/usr/bin/env bash
# packages.sh FILE...: prints the Debian packages that own the shared libraries of these programs, one a line. Their names differ between
# releases. Fails if a library is missing or belongs to no package: an image without it could not run the programs.
set -eu -o pipefail
export LC_ALL=C # messages are read
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for file; do
    if [ "$(head -c 4 "$file" | tail -c 3)" = ELF ]; then # not a script
        ldd "$file"
    fi
done >"$work/linked"
if grep 'not found' "$work/linked" >&2; then
    exit 1
fi
# No package owns the links of update-alternatives, but one owns the file behind them. dpkg may know /usr/lib by its older name, /lib.
awk '$3 ~ /^\// {print $3}' "$work/linked" | xargs readlink -e | sed 's,^/usr/,/,; s,^,*,' | sort -u >"$work/libraries"
xargs dpkg-query -S <"$work/libraries" >"$work/owners" # its status is 1 if it does not find one of them
sed -E '/^(local )?diversion /d; s/:.*//' "$work/owners" | sort -u
