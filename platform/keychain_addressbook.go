package platform

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"smime-agent/platform/internal/security"
)

// keychainAddressBook is the keychain where Mail and Outlook look for other
// people's certificates. A certificate in a keychain has no place for a mark, so
// a file in the user's own folder lists what was filed here, by SHA-256. It is
// written before the keychain: what a crash leaves may be listed and not filed,
// never filed and not listed. A list that is lost leaves certificates behind.
type keychainAddressBook struct {
	open func() (keychain, error)
	// list is the file.
	list string
}

func (b *keychainAddressBook) Name() string { return keychainName }

func (b *keychainAddressBook) use(ctx context.Context, what string, do func(k keychain) error) error {
	s := &keychainStore{open: b.open}
	return s.use(ctx, what, do)
}

func (b *keychainAddressBook) Put(ctx context.Context, certs []*x509.Certificate) error {
	return b.use(ctx, "file partners' certificates", func(k keychain) error {
		there, err := k.Certificates()
		if err != nil {
			return err
		}
		missing := slices.DeleteFunc(slices.Clone(certs), func(c *x509.Certificate) bool { return holds(there, c) })
		if len(missing) == 0 {
			return nil
		}
		listed, err := b.read()
		if err != nil {
			return err
		}
		for _, c := range missing {
			listed[fingerprintOf(c)] = true
		}
		if err := b.write(listed); err != nil {
			return err
		}
		for _, c := range missing {
			if err := k.AddCertificate(c.Raw); err != nil {
				return fmt.Errorf("add %q: %w", c.Subject.CommonName, err)
			}
		}
		return nil
	})
}

func (b *keychainAddressBook) Ours(ctx context.Context) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	err := b.use(ctx, "list partners' certificates", func(k keychain) (err error) {
		certs, _, err = b.ours(k)
		return err
	})
	return certs, err
}

// ours gives what is listed and there, and the list.
func (b *keychainAddressBook) ours(k keychain) ([]*x509.Certificate, map[string]bool, error) {
	listed, err := b.read()
	if err != nil || len(listed) == 0 {
		return nil, listed, err
	}
	there, err := k.Certificates()
	if err != nil {
		return nil, nil, err
	}
	var certs []*x509.Certificate
	for _, der := range there {
		if c, err := x509.ParseCertificate(der); err == nil && listed[fingerprintOf(c)] {
			certs = append(certs, c)
		}
	}
	return certs, listed, nil
}

// Remove takes a certificate away before it takes it off the list.
func (b *keychainAddressBook) Remove(ctx context.Context, certs []*x509.Certificate) error {
	return b.use(ctx, "take partners' certificates away", func(k keychain) error {
		ours, listed, err := b.ours(k)
		if err != nil {
			return err
		}
		gone, err := b.removable(k, both(certs, ours))
		if err != nil {
			return err
		}
		for _, c := range gone {
			if err := k.RemoveCertificate(c.Raw); err != nil {
				return fmt.Errorf("remove %q: %w", c.Subject.CommonName, err)
			}
			delete(listed, fingerprintOf(c))
		}
		return b.write(listed)
	})
}

// removable leaves out what has become the person's own, and issuers that are
// needed.
func (b *keychainAddressBook) removable(k keychain, certs []*x509.Certificate) ([]*x509.Certificate, error) {
	items, err := k.Items("")
	if err != nil {
		return nil, err
	}
	there, err := k.Certificates()
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, der := range there {
		if c, err := x509.ParseCertificate(der); err == nil {
			all = append(all, c)
		}
	}
	certs = slices.DeleteFunc(certs, func(c *x509.Certificate) bool {
		return slices.ContainsFunc(items, func(i security.Item) bool { return i.Labels(c.PublicKey) })
	})
	return unneeded(certs, all), nil
}

// maxPartnerList bounds the file: some 15000 certificates.
const maxPartnerList = 1 << 20

func (b *keychainAddressBook) read() (map[string]bool, error) {
	data, err := os.ReadFile(b.list)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]bool{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read list of partners' certificates: %w", denied(err))
	}
	var names []string
	if len(data) > maxPartnerList || json.Unmarshal(data, &names) != nil {
		return nil, fmt.Errorf("the list of partners' certificates %s cannot be read; remove the file, and then what is too much in the keychain", b.list)
	}
	listed := make(map[string]bool, len(names))
	for _, name := range names {
		listed[name] = true
	}
	return listed, nil
}

func (b *keychainAddressBook) write(listed map[string]bool) error {
	names := make([]string, 0, len(listed))
	for name := range listed {
		names = append(names, name)
	}
	slices.Sort(names)
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	if err := PrivateDir(filepath.Dir(b.list)); err != nil {
		return err
	}
	return WriteFile(b.list, data, 0o600)
}

func holds(ders [][]byte, c *x509.Certificate) bool {
	return slices.ContainsFunc(ders, func(der []byte) bool { return bytes.Equal(der, c.Raw) })
}

func fingerprintOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
