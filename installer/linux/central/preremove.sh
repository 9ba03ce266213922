#!/bin/sh
# Before removing: dpkg says "remove", rpm 0. An upgrade stops nothing here.
case "$1" in
remove | 0) [ ! -d /run/systemd/system ] || systemctl stop smime-central.service ;;
esac
exit 0
