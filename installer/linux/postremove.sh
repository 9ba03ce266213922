#!/bin/sh
# After removing: dpkg says "remove", and "purge" if all is to go; rpm 0, for it
# knows no purge. Keys and certificates of users are in their homes and stay.
case "$1" in
purge | 0)
	rm -rf /var/lib/smime-agent /var/log/smime-agent /run/smime-agent
	rm -f /etc/smime-agent/config.yaml
	# What others put into the policy folder is theirs.
	rmdir /etc/smime-agent/policy.d /etc/smime-agent 2>/dev/null
	rm -f /etc/systemd/system/multi-user.target.wants/smime-agent.service \
		/etc/systemd/user/default.target.wants/smime-helper.service
	rmdir /etc/systemd/user/default.target.wants 2>/dev/null
	;;
esac
case "$1" in
purge | remove | 0) [ ! -d /run/systemd/system ] || systemctl daemon-reload ;;
esac
exit 0
