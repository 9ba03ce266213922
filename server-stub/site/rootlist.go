package site

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"smime-agent/server-stub/ca"
)

// rootList reads the root's revocation list anew when its file has changed, so
// that a list that was signed elsewhere needs no restart.
type rootList struct {
	path string
	root *x509.Certificate

	mu  sync.Mutex
	der []byte
}

func readRoot(dir string) (*x509.Certificate, error) {
	certs, err := ca.ReadCertificates(filepath.Join(dir, RootCert))
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// get gives the list (DER). A file that holds no list of this root is refused,
// and the last good list stays, if there is one.
func (l *rootList) get() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The time of a file is too coarse to tell that it changed, and it is small.
	der, err := os.ReadFile(l.path)
	if err != nil {
		return l.orLast(err)
	}
	if l.der != nil && bytes.Equal(der, l.der) {
		return l.der, nil
	}
	list, err := x509.ParseRevocationList(der)
	if err == nil {
		err = list.CheckSignatureFrom(l.root)
	}
	if err != nil {
		return l.orLast(fmt.Errorf("%s: %w", l.path, err))
	}
	l.der = der
	return der, nil
}

func (l *rootList) orLast(err error) ([]byte, error) {
	if l.der != nil {
		return l.der, nil
	}
	return nil, err
}

// RootSigning is one run of signing the root's revocation list, best done on
// the machine where the root's key lies.
type RootSigning struct {
	Dir string
	// KeyFile is the root's key; empty means that of the directory.
	KeyFile string
	// Revoke names the certificate file of an issuing CA to take back; empty takes
	// none back. Reason is an RFC 5280 name.
	Revoke string
	Reason string
	Now    time.Time
}

// Sign writes the next list over the last one, and gives its end. A running
// server hands it out at once.
func (s RootSigning) Sign() (time.Time, error) {
	keyFile := s.KeyFile
	if keyFile == "" {
		keyFile = filepath.Join(s.Dir, RootKey)
	}
	certs, key, err := ca.ReadPair(filepath.Join(s.Dir, RootCert), keyFile)
	if err != nil {
		return time.Time{}, err
	}
	path := filepath.Join(s.Dir, RootList)
	last, err := os.ReadFile(path)
	if err != nil {
		return time.Time{}, err
	}
	var more []ca.RootRevocation
	if s.Revoke != "" {
		issuing, err := ca.ReadCertificates(s.Revoke)
		if err != nil {
			return time.Time{}, err
		}
		if err := issuing[0].CheckSignatureFrom(certs[0]); err != nil {
			return time.Time{}, fmt.Errorf("%s: not signed by this root: %w", s.Revoke, err)
		}
		more = append(more, ca.RootRevocation{Serial: issuing[0].SerialNumber, At: s.Now, Reason: s.Reason})
	}
	der, err := ca.NextRootList(ca.Pair{Cert: certs[0], Key: key}, last, more, s.Now)
	if err != nil {
		return time.Time{}, err
	}
	return s.Now.Add(ca.RootListLife), replace(path, der)
}

// replace puts a file in another's place at once: nobody reads half of it.
func replace(path string, data []byte) error {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := ca.WriteFile(next, data); err != nil {
		return err
	}
	return os.Rename(next, path)
}
