#!/bin/sh
# Before removing: dpkg says "remove", rpm 0. An upgrade stops nothing here.
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
[ -d /run/systemd/system ] || exit 0
systemctl list-units --plain --no-legend --state=active 'user@*.service' | sed -n 's/^user@\([0-9]*\)\.service .*/\1/p' |
	while read -r uid; do systemctl --user --machine="$uid@" stop smime-helper.service 2>/dev/null; done
systemctl stop smime-agent.service
exit 0
