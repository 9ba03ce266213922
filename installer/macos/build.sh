#!/usr/bin/env bash
# Builds the package on a Mac: build.sh VERSION [PROGRAM-IDENTITY INSTALLER-IDENTITY],
# into dist/macos/. The identities are those of a Developer ID; without them the
# package is not signed, fit for a test machine only. Notarize what is signed:
# xcrun notarytool submit PACKAGE --keychain-profile NAME --wait, then
# xcrun stapler staple PACKAGE.
set -euo pipefail
umask 022 # the modes of folders go into the package as they are
cd "$(dirname "$0")/../.."
version=$1 programs=${2:-} installer=${3:-}
out=dist/macos root=dist/macos/root
rm -rf "$out"
mkdir -p "$root/opt/smime-agent/bin" "$root/Library/LaunchDaemons" "$root/Library/LaunchAgents" "$root/private/etc/paths.d"

for program in smime-agent smime-helper; do
	for arch in arm64 amd64; do
		CGO_ENABLED=1 GOOS=darwin GOARCH=$arch go build -trimpath -tags grpcnotrace -ldflags "-s -w -X main.version=$version" \
			-o "$out/$program-$arch" "./agent/cmd/$program"
	done
	lipo -create -output "$root/opt/smime-agent/bin/$program" "$out/$program-arm64" "$out/$program-amd64"
	# Hardened runtime, library validation on, no entitlements. Only the helper loads a
	# library that another team signed: Thunderbird's NSS (docs/attack-surface.md).
	options=runtime,library entitlements=
	if [ "$program" = smime-helper ]; then options=runtime entitlements=installer/macos/smime-helper.entitlements; fi
	if [ -n "$programs" ]; then
		codesign --sign "$programs" --options "$options" ${entitlements:+--entitlements "$entitlements"} --timestamp \
			--identifier "org.smime-agent.$program" "$root/opt/smime-agent/bin/$program"
	fi
done
install -m 644 installer/macos/LaunchDaemons/*.plist "$root/Library/LaunchDaemons/"
install -m 644 installer/macos/LaunchAgents/*.plist "$root/Library/LaunchAgents/"
install -m 755 installer/macos/uninstall.sh "$root/opt/smime-agent/uninstall"
installer/notices.sh darwin >"$root/opt/smime-agent/NOTICES"
chmod 644 "$root/opt/smime-agent/NOTICES"
# /etc is a link on macOS, and a package must not put a folder in its place.
echo /opt/smime-agent/bin > "$root/private/etc/paths.d/smime-agent"

# "recommended" makes everything root:wheel, whoever builds.
pkgbuild --root "$root" --ownership recommended --identifier org.smime-agent --version "$version" \
	--scripts installer/macos/scripts "$out/component.pkg"
sed "s/\"VERSION\"/\"$version\"/" installer/macos/distribution.xml > "$out/distribution.xml"
productbuild ${installer:+--sign "$installer" --timestamp} --distribution "$out/distribution.xml" --package-path "$out" \
	"$out/smime-agent-$version.pkg"
rm "$out/component.pkg" "$out/distribution.xml"
