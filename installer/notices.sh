#!/usr/bin/env bash
# Prints the licenses of all that is linked into the two programs for a system,
# which ask to go along with them: notices.sh linux|windows|darwin. It refuses what
# has no license, or one that would bind the whole program (GPL and its kin).
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
goroot=$("$GO" env GOROOT)
cgo=1
if [ "$1" = windows ]; then cgo=0; fi
modules=$(CGO_ENABLED=$cgo GOOS=$1 "$GO" list -deps -tags grpcnotrace \
	-f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./agent/cmd/... | LC_ALL=C sort -u)

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

echo 'The programs smime-agent and smime-helper contain the following software of others.'
if [ -f "$goroot/LICENSE" ]; then
	one 'Go, its runtime and standard library' "$goroot"
else # as some distributions build it; the same people, the same words
	one 'Go, its runtime and standard library' "$("$GO" list -m -f '{{.Dir}}' golang.org/x/sys)"
fi
while read -r path version folder; do one "$path $version" "$folder"; done <<<"$modules"
