// Package exchange makes what an administrator of Exchange needs so that Outlook
// on the web and the new Outlook trust the company's mail certificates: they
// take nothing from the machine but the certificate itself.
package exchange

import (
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Words of a serialized certificate store (MS-OSHARED §2.3.9.1 and §2.3.2.5).
const (
	fileType         = 0x54524543 // "CERT"
	certificateEntry = 0x20
	encodingX509     = 1
)

// ErrExpired says that a certificate has ended: Set-SmimeConfig refuses a store
// that has one in it.
var ErrExpired = errors.New("a certificate of the store has ended")

// SST writes certificates as a serialized store, as the Certificates console
// exports it (.sst). None may have ended at that time.
func SST(certs []*x509.Certificate, now time.Time) ([]byte, error) {
	if len(certs) == 0 {
		return nil, errors.New("a store without certificates")
	}
	out := numbers(nil, 0, fileType) // version 0
	for _, c := range certs {
		if now.After(c.NotAfter) {
			return nil, fmt.Errorf("%w: %s, on %s", ErrExpired, c.Subject, c.NotAfter.UTC().Format(time.DateOnly))
		}
		out = numbers(out, certificateEntry, encodingX509, uint32(len(c.Raw))) //nolint:gosec // a certificate is small
		out = append(out, c.Raw...)
	}
	return numbers(out, 0, 0, 0), nil // the end mark
}

func numbers(to []byte, all ...uint32) []byte {
	for _, n := range all {
		to = binary.LittleEndian.AppendUint32(to, n)
	}
	return to
}
