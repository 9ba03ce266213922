#!/bin/sh
# After unpacking: dpkg says "configure [OLD-VERSION]", rpm how many versions there are.
set -e
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
case "$1:$2" in
configure: | 1:*)
	systemctl enable smime-agent.service
	systemctl --global enable smime-helper.service
	;;
esac
# Who has switched the service off does not get it started by an upgrade.
if systemctl is-enabled --quiet smime-agent.service; then
	systemctl restart smime-agent.service || echo 'smime-agent did not start; see: journalctl -u smime-agent' >&2
fi
# Users who are logged in get the helper now, all others at their next login.
systemctl list-units --plain --no-legend --state=active 'user@*.service' | sed -n 's/^user@\([0-9]*\)\.service .*/\1/p' |
	while read -r uid; do
		systemctl --user --machine="$uid@" daemon-reload 2>/dev/null &&
			systemctl --user --machine="$uid@" is-enabled --quiet smime-helper.service 2>/dev/null &&
			systemctl --user --machine="$uid@" restart smime-helper.service || true
	done
