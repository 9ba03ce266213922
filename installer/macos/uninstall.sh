#!/bin/sh
# Takes the agent off this Mac: sudo /opt/smime-agent/uninstall. Keys and
# certificates of people are in their own keychains, and stay. Then have central
# management forget the device: server-stub device remove ID.
{ # all of it is read before the file itself goes
	[ "$(/usr/bin/id -u)" = 0 ] || { echo 'Run it as root: sudo /opt/smime-agent/uninstall' >&2; exit 1; }
	for uid in $(/bin/ps -axo uid=,comm= | /usr/bin/awk '$2 ~ /\/loginwindow$/ && $1 >= 500 { print $1 }'); do
		/bin/launchctl bootout "gui/$uid/org.smime-agent.helper" 2>/dev/null
	done
	/bin/launchctl bootout system/org.smime-agent 2>/dev/null
	# bootout does not wait, and a service that still runs would write its files anew.
	turns=0
	while [ "$turns" -lt 40 ] && /bin/launchctl print system/org.smime-agent >/dev/null 2>&1; do
		/bin/sleep 1
		turns=$((turns + 1))
	done
	/bin/rm -f /Library/LaunchDaemons/org.smime-agent.plist /Library/LaunchAgents/org.smime-agent.helper.plist
	/bin/rm -rf /var/db/smime-agent /var/db/smime-agent-run /var/log/smime-agent
	/bin/rm -f /etc/smime-agent/config.yaml /etc/paths.d/smime-agent /var/log/smime-agent.err.log
	/bin/rmdir /etc/smime-agent 2>/dev/null
	# The device's identity. Each call removes one item; there are a handful.
	for turn in 1 2 3 4 5 6 7 8 9 10 11 12; do
		/usr/bin/security delete-generic-password -s org.smime-agent /Library/Keychains/System.keychain >/dev/null 2>&1 || break
	done
	/usr/sbin/pkgutil --forget org.smime-agent >/dev/null 2>&1
	/bin/rm -rf /opt/smime-agent
	exit 0
}
