#!/usr/bin/env bash
# Builds packages for Linux: build.sh VERSION NFPM agent|central PACKAGER... (deb,
# rpm), into dist/. The same commit and tools give the same bytes: every time in
# the package is the commit's, every mode is said in nfpm.yaml, no path of this
# machine is in the programs.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C TZ=UTC
export PKG_VERSION=$1 nfpm=$2 what=$3
shift 3
GO=${GO:-go}
PKG_ARCH=$("$GO" env GOARCH)
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
: "${PKG_MAINTAINER:=The smime-agent maintainers <maintainers@smime-agent.invalid>}"
: "${PKG_VENDOR:=smime-agent}"
export PKG_ARCH SOURCE_DATE_EPOCH PKG_MAINTAINER PKG_VENDOR
umask 022

case $what in
agent) here=installer/linux out=dist/linux name=smime-agent packages=(./agent/cmd/smime-agent ./agent/cmd/smime-helper) ;;
# Its manual and completions are those of the command that people call.
central) here=installer/linux/central out=dist/linux-central name=smime-central packages=(./server-stub) && export SERVER_STUB_CALLED_AS=$name ;;
*) echo "build.sh: $what is neither agent nor central" >&2 && exit 2 ;;
esac
rm -rf "$out"
mkdir -p "$out/man" "$out/completion"
programs=()
for package in "${packages[@]}"; do
	# The version is in the programs already; the stamp of version control would
	# tell a clone from a tarball.
	"$GO" build -trimpath -buildvcs=false -tags grpcnotrace -ldflags "-s -w -buildid= -X main.version=$PKG_VERSION" -o "$out/" "$package"
	programs+=("$out/${package##*/}")
done

# What documents the programs comes out of them, so it fits them. A program built
# for another machine cannot be run, so one for this machine speaks for it.
speaker=${programs[0]}
if [ "$PKG_ARCH" != "$("$GO" env GOHOSTARCH)" ]; then
	speaker=$out/speaker
	GOARCH='' CC='' "$GO" build -trimpath -buildvcs=false -tags grpcnotrace -o "$speaker" "${packages[0]}"
fi
"$speaker" man "$out/man"
for shell in bash zsh fish; do "$speaker" completion "$shell" >"$out/completion/$name.$shell"; done
case $what in
agent)
	cp $here/smime-helper.1 "$out/man/"
	cp $here/*.service $here/*.desktop $here/desktop-session $here/config.yaml $here/policy.yaml "$out/"
	;;
central) cp $here/*.service $here/smime-central $here/sysusers.conf $here/logrotate "$out/" ;;
esac
gzip -9n "$out"/man/*.1
GO="$GO" installer/notices.sh linux "${packages[@]}" >"$out/copyright"

# The lowest C library that has all the functions which the programs use.
GLIBC=$(objdump -T "${programs[@]}" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -1)
export GLIBC=${GLIBC:?the programs name no version of the C library}
find "$out" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
for packager in "$@"; do "$nfpm" package --config $here/nfpm.yaml --packager "$packager" --target dist/; done
