#!/usr/bin/env bash
# Signs programs and packages for Windows in place: sign.sh FILE... By osslsigncode
# and the certificate that the environment names:
#   SIGN_PKCS12 and SIGN_PASSWORD_FILE     a .p12 and the file with its password, or
#   SIGN_CERTIFICATES and SIGN_KEY         PEM files, the leaf first; the key unencrypted, or a URI of PKCS #11 with
#   SIGN_PKCS11_MODULE, SIGN_PKCS11_ENGINE the token's module, and OpenSSL's engine for it
#   SIGN_TIMESTAMP                         URL of an RFC 3161 server. Without it the signature ends with its certificate.
set -euo pipefail
if [ -n "${SIGN_PKCS12:-}" ]; then
	with=(-pkcs12 "$SIGN_PKCS12" -readpass "${SIGN_PASSWORD_FILE:?the file with the password of SIGN_PKCS12}")
else
	with=(-certs "${SIGN_CERTIFICATES:?PEM file, or set SIGN_PKCS12}" -key "${SIGN_KEY:?PEM file or URI of PKCS #11}")
fi
if [ -n "${SIGN_PKCS11_MODULE:-}" ]; then
	with+=(-pkcs11module "$SIGN_PKCS11_MODULE" -pkcs11engine "${SIGN_PKCS11_ENGINE:?the engine of OpenSSL for PKCS #11}")
fi
if [ -n "${SIGN_TIMESTAMP:-}" ]; then with+=(-ts "$SIGN_TIMESTAMP"); fi
for file in "$@"; do
	signed=$(mktemp "$file.XXXXXX")
	rm "$signed" # osslsigncode wants to make it itself
	osslsigncode sign "${with[@]}" -h sha256 -n 'S/MIME Agent' -in "$file" -out "$signed" >/dev/null
	mv "$signed" "$file"
done
