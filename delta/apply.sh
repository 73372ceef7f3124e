#!/bin/sh
# Applies the Ferry delta in this folder, or in this folder's zip once unpacked.
#
#   sh apply.sh --base OLD-FOLDER --to NEW-FOLDER
#   sh apply.sh --in-place FOLDER
#
# Other options are those of "ferry delta apply". The exit status is ferry's; 5 says
# that there is no ferry to do it.

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
if [ "$#" -eq 0 ]; then
	sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
	exit 64
fi

os=$(uname -s | tr '[:upper:]' '[:lower:]')
arch=$(uname -m)
case $arch in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
esac

for tool in "$here/tool/ferry-$os-$arch" "$here/tool/ferry"; do
	[ -f "$tool" ] || continue
	chmod u+x "$tool" 2>/dev/null
	if "$tool" version >/dev/null 2>&1; then
		exec "$tool" delta apply "$here" "$@"
	fi
done

# A carried tool that may not run where it stands, such as on a read-only medium.
for tool in "$here/tool/ferry-$os-$arch" "$here/tool/ferry"; do
	[ -f "$tool" ] || continue
	copy=$(mktemp -d "${TMPDIR:-/tmp}/ferry-XXXXXX") || break
	trap 'rm -rf "$copy"' EXIT
	trap 'exit 130' INT TERM
	if cp "$tool" "$copy/ferry" && chmod u+x "$copy/ferry" && "$copy/ferry" version >/dev/null 2>&1; then
		"$copy/ferry" delta apply "$here" "$@"
		exit "$?"
	fi
	rm -rf "$copy"
done

if command -v ferry >/dev/null 2>&1; then
	exec ferry delta apply "$here" "$@"
fi

echo "apply.sh: this delta carries no ferry for $os-$arch, and none is installed." >&2
echo "apply.sh: get the ferry program for $os-$arch, put it at" >&2
echo "apply.sh:   $here/tool/ferry" >&2
echo "apply.sh: or in a folder of PATH, and run this again." >&2
exit 5
