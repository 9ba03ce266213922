#!/usr/bin/env bash
# Prints the licenses of all that is linked into programs for a system, which ask
# to go along with them: notices.sh linux|windows|darwin [PACKAGE...], by default
# the agent's two. It refuses what has no license, or one that would bind the whole
# program (GPL and its kin).
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
goroot=$("$GO" env GOROOT)
system=$1
shift
if [ $# -eq 0 ]; then set -- ./agent/cmd/smime-agent ./agent/cmd/smime-helper; fi
programs=$(for package in "$@"; do basename "$package"; done | paste -sd, | sed 's/,/ and /')
cgo=1
if [ "$system" = windows ]; then cgo=0; fi
modules=$(CGO_ENABLED=$cgo GOOS=$system "$GO" list -deps -tags grpcnotrace \
	-f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' "$@" | LC_ALL=C sort -u)

one() { # NAME FOLDER
	local files
	files=$(find "$2/" -maxdepth 1 -type f -iregex '.*/\(licen[cs]e\|copying\|notice\)[^/]*' -not -name '*.go' | LC_ALL=C sort)
	if [ -z "$files" ]; then
		echo "$1 has no license in $2: find out what it is under, or do without it." >&2
		exit 1
	fi
	printf '\n%s\n%s\n' "$(printf '=%.0s' {1..78})" "$1"
	while read -r file; do
		if grep -q 'GENERAL PUBLIC LICENSE' "$file"; then
			echo "$1 is under a license that would bind the programs: do without it." >&2
			exit 1
		fi
		printf '\n'
		tr -d '\r' <"$file"
	done <<<"$files"
}

echo "$programs: this package has the following software of others in its programs."
if [ -f "$goroot/LICENSE" ]; then
	one 'Go, its runtime and standard library' "$goroot"
else # as some distributions build it; the same people, the same words
	one 'Go, its runtime and standard library' "$("$GO" list -m -f '{{.Dir}}' golang.org/x/sys)"
fi
while read -r path version folder; do one "$path $version" "$folder"; done <<<"$modules"
