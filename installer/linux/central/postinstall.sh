#!/bin/sh
# After unpacking: dpkg says "configure [OLD-VERSION]", rpm how many versions there are.
set -e
systemd-sysusers smime-central.conf
install -d -m 0700 -o smime-central -g smime-central /var/lib/smime-central
if [ ! -e /var/lib/smime-central/server.yaml ]; then
	cat <<'END'
smime-central has no server to run yet. Found one, and start it:
  smime-central init --organization "Example GmbH" --country DE \
      --organization-identifier NTRDE-DER3306.HRB12345 --host pki.example.com
  systemctl enable --now smime-central
END
fi
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
# Who has switched the service off does not get it started by an upgrade.
if systemctl is-enabled --quiet smime-central.service || systemctl is-active --quiet smime-central.service; then
	systemctl restart smime-central.service || echo 'smime-central did not start; see: journalctl -u smime-central' >&2
fi
