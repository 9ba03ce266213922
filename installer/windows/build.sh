#!/usr/bin/env bash
# Builds the package for Windows (x64) on Linux: build.sh VERSION GO_WINRES, into
# dist/ or the folder DIST. Needs wixl, msitools and faketime. The same commit and tools give the
# same bytes. If SIGN_WITH names a command, it is run with each program and then
# with the package as its argument, and must sign the file in place; what is
# signed goes to dist/signed/.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C TZ=UTC
version=$1 winres=$2
GO=${GO:-go}
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
: "${PKG_VENDOR:=smime-agent}"
umask 022
here=$PWD/installer/windows

# Windows Installer compares three numbers, of which the last is at most 65535. A
# version that is not a release's counts the hours of its commit since 2026, below
# every release.
if [[ $version =~ ^([0-9]+\.[0-9]+\.[0-9]+)$ ]]; then
	number=$version
else
	number=0.0.$(((SOURCE_DATE_EPOCH - 1767225600) / 3600))
fi

target=${DIST:-$PWD/dist} # an absolute path
out=$target/windows
rm -rf "$out"
mkdir -p "$out"
for program in smime-agent smime-helper; do
	flags="-s -w -buildid= -X main.version=$version"
	if [ $program = smime-helper ]; then flags+=' -H=windowsgui'; fi # or every logon flashes a console
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 "$GO" build -trimpath -buildvcs=false -tags grpcnotrace -ldflags "$flags" -o "$out/" "./agent/cmd/$program"
	"$winres" patch --no-backup --in "agent/cmd/$program/winres.json" --file-version "$number.0" --product-version "$number.0" "$out/$program.exe"
done

GO="$GO" installer/notices.sh windows | sed 's/$/\r/' >"$out/NOTICES.txt"

# One package, one identity: both codes are drawn from all that goes into it, so
# that two different packages never share one.
uuid() {
	(echo "$1 $number $version" && cat "$out"/*.exe "$out/NOTICES.txt" "$here/smime-agent.wxs" "$here"/tables/*.idt "$here/build.sh") | sha256sum |
		sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-5\3-8\4-\5/' | tr a-f A-F
}
product=$(uuid product) package=$(uuid package)

if [ -n "${SIGN_WITH:-}" ]; then
	target=$target/signed
	mkdir -p "$target"
	for program in smime-agent smime-helper; do
		"$SIGN_WITH" "$out/$program.exe"
		cp "$out/$program.exe" "$target/"
	done
fi

# Cabinet, summary and storage hold times: those of the files, and the clock's.
find "$out" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
still() { faketime -f "$(date -u --date="@$SOURCE_DATE_EPOCH" '+%Y-%m-%d %H:%M:%S')" "$@"; }
msi=$out/package.msi
if ! (cd "$out" && still wixl -a x64 -D ProductCode="$product" -D PackageCode="$package" -D Version="$number" -D FullVersion="$version" \
	-D Vendor="$PKG_VENDOR" -o "$msi" "$here/smime-agent.wxs") 2>"$out/wixl.log" || [ -s "$out/wixl.log" ]; then
	cat "$out/wixl.log" >&2 # it passes over what it does not know with no more than a warning
	exit 1
fi

# What wixl does not know (see docs/windows-package.md). One statement a call:
# msibuild ends quietly at the first that fails.
sql() { still msibuild "$msi" -q "$1"; }
still msibuild "$msi" -s "S/MIME Agent $version" "$PKG_VENDOR" 'x64;1033' "{$package}"
for table in MsiLockPermissionsEx MsiServiceConfig ActionText RemoveFile; do still msibuild "$msi" -i "$here/tables/$table.idt"; done
sql "UPDATE \`Property\` SET \`Value\`='WIX_DOWNGRADE_DETECTED;WIX_UPGRADE_DETECTED;SERVERURL;SERVERCA;SERVERPIN;JOINTOKEN;PURGE;PURGEDATA;PURGESTATE;PURGESECRETS;PURGELOGS' WHERE \`Property\`='SecureCustomProperties'"
for table in InstallExecuteSequence InstallUISequence; do
	sql "UPDATE \`$table\` SET \`Condition\`='NOT (SERVERURL OR SERVERCA OR SERVERPIN)' WHERE \`Action\`='AppSearch'"
done
# Inside the transaction: an upgrade that fails brings the old version back.
sql "UPDATE \`InstallExecuteSequence\` SET \`Sequence\`=1501 WHERE \`Action\`='RemoveExistingProducts'"
sql "INSERT INTO \`InstallExecuteSequence\` (\`Action\`, \`Condition\`, \`Sequence\`) VALUES ('MsiConfigureServices', 'VersionMsi >= \"5.00\"', 5850)"
# Another build of the same version takes its place (msidbUpgradeAttributesVersionMaxInclusive).
sql "DELETE FROM \`Upgrade\` WHERE \`ActionProperty\`='WIX_UPGRADE_DETECTED'" # what is to change is a part of its key
sql "INSERT INTO \`Upgrade\` (\`UpgradeCode\`, \`VersionMax\`, \`Attributes\`, \`ActionProperty\`) VALUES ('{73841288-57A9-4725-88AA-296A7175B029}', '$number', 513, 'WIX_UPGRADE_DETECTED')"
for pair in Server=SERVERURL ServerCA=SERVERCA ServerPin=SERVERPIN JoinToken=JOINTOKEN; do
	sql "UPDATE \`Component\` SET \`Condition\`='${pair#*=}' WHERE \`Component\`='${pair%=*}'"
done
# A service that does not start fails the installation (msidbServiceInstallErrorControlVital).
sql "UPDATE \`ServiceInstall\` SET \`ErrorControl\`=32769 WHERE \`ServiceInstall\`='AgentService'"
sql "UPDATE \`Registry\` SET \`Value\`='#%%SystemRoot%\\System32\\EventCreate.exe' WHERE \`Name\`='EventMessageFile'"
# Files with versions are compared by them; hashes are for those without.
for file in AgentExe=SMIME-A.EXE HelperExe=SMIME-H.EXE; do
	name=$(still msiinfo export "$msi" File | awk -v "key=${file%=*}" '$1 == key { print $3 }')
	sql "UPDATE \`File\` SET \`Version\`='$number.0', \`Language\`='1033', \`FileName\`='${file#*=}|$name' WHERE \`File\`='${file%=*}'"
	sql "DELETE FROM \`MsiFileHash\` WHERE \`File_\`='${file%=*}'"
done
sql "UPDATE \`Directory\` SET \`DefaultDir\`='SMIME-AG|smime-agent' WHERE \`Directory\`='INSTALLDIR'"

if [ -n "${SIGN_WITH:-}" ]; then "$SIGN_WITH" "$msi"; fi # strictly last: any change breaks the signature
mv "$msi" "$target/smime-agent-$version-x64.msi"
