#!/bin/sh
# After removing: dpkg says "remove", and "purge" if all is to go; rpm 0, for it
# knows no purge. A CA's keys and record are never removed by a script: without
# them nothing that was issued can be revoked, and nobody can make them again.
case "$1" in
purge | 0)
	rm -f /etc/systemd/system/multi-user.target.wants/smime-central.service
	if rmdir /var/lib/smime-central 2>/dev/null; then # nothing was founded
		userdel smime-central
	elif [ -d /var/lib/smime-central ]; then
		echo 'smime-central: /var/lib/smime-central stays. It has the keys of your CA and the record of its certificates;'
		echo 'once none of them is in force: rm -rf /var/lib/smime-central && userdel smime-central'
	fi
	;;
esac
case "$1" in
purge | remove | 0) [ ! -d /run/systemd/system ] || systemctl daemon-reload ;;
esac
exit 0
