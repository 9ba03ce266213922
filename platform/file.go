package platform

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// fileStore keeps keys as PEM files of the user, for programs that know no
// other store: mutt and openssl. ID.key is the key (PKCS #8, not encrypted);
// ID.FINGERPRINT.crt is a certificate with its issuers behind it, one file for
// each certificate that the key ever got.
type fileStore struct {
	dir string
}

// fileStoreFolder is below the user's home folder, on every system.
const fileStoreFolder = ".local/share/smime-agent/keys"

func newFileStore(home string) *fileStore {
	return &fileStore{dir: filepath.Join(home, filepath.FromSlash(fileStoreFolder))}
}

func allAlgorithms() []KeyAlgorithm { return []KeyAlgorithm{RSA2048, RSA3072, RSA4096, P256, P384} }

func (s *fileStore) Info() StoreInfo {
	return StoreInfo{Name: "file", Protection: Software, Algorithms: allAlgorithms(), Consumers: []string{"mutt", "openssl"}}
}

// fileName is what a key may be called here: no dots, no slashes.
var fileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

func (s *fileStore) keyPath(id KeyID) (string, error) {
	if !fileName.MatchString(string(id)) {
		return "", fmt.Errorf("%w: %q cannot be the name of a file", ErrUnsupported, id)
	}
	return filepath.Join(s.dir, string(id)+".key"), nil
}

func (s *fileStore) Create(_ context.Context, id KeyID, spec KeySpec) (Key, error) {
	key, err := s.create(id, spec)
	if err != nil {
		return nil, fmt.Errorf("create key %s in store file: %w", id, err)
	}
	return key, nil
}

func (s *fileStore) create(id KeyID, spec KeySpec) (Key, error) {
	path, err := s.keyPath(id)
	if err != nil {
		return nil, err
	}
	_, err = readKey(path)
	if err == nil {
		return nil, ErrExists
	}
	if errors.Is(err, errDamaged) {
		if len(s.certificates(id)) > 0 {
			return nil, err // it had a certificate: a person may still mend the file
		}
	} else if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	made, err := generate(spec.Algorithm)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(made)
	if err != nil {
		return nil, err
	}
	if err := s.forgetTorn(id); err != nil {
		return nil, denied(err)
	}
	if err := s.write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return nil, err
	}
	return newFileKey(id, made)
}

func generate(algorithm KeyAlgorithm) (crypto.Signer, error) {
	switch algorithm {
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, fmt.Errorf("%w: no keys of kind %q", ErrUnsupported, algorithm)
}

// write makes the folder and replaces a file in it as a whole.
func (s *fileStore) write(path string, content []byte) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return denied(err)
	}
	//nolint:gosec // a folder needs the x; it may have been there, and wider
	if err := os.Chmod(s.dir, 0o700); err != nil {
		return denied(err)
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return denied(err)
	}
	// What a crash left half written of any key does not stay for ever.
	err = errors.Join(sweep(root, time.Now()), writeIn(root, filepath.Base(path), content, 0o600))
	return errors.Join(err, root.Close())
}

// forgetTorn removes what a crash left of earlier attempts to write this key.
func (s *fileStore) forgetTorn(id KeyID) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var failed []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix+string(id)+".key-") {
			failed = append(failed, removeFile(filepath.Join(s.dir, e.Name())))
		}
	}
	return errors.Join(failed...)
}

// removeFile is no error if the file is not there.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// errDamaged is a file that is there and makes no sense.
var errDamaged = errors.New("the file is damaged")

func readKey(path string) (crypto.Signer, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, denied(err)
	}
	key, err := parseKey(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// parseKey gives a key that the store can have made; else [errDamaged].
func parseKey(content []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, errDamaged
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	switch key := parsed.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("%w: a key of type %T", errDamaged, parsed)
}

func (s *fileStore) Open(_ context.Context, id KeyID) (Key, error) {
	path, err := s.keyPath(id)
	if err == nil {
		var key crypto.Signer
		if key, err = readKey(path); err == nil {
			return newFileKey(id, key)
		}
	}
	return nil, fmt.Errorf("open key %s in store file: %w", id, err)
}

func (s *fileStore) Delete(_ context.Context, id KeyID) error {
	path, err := s.keyPath(id)
	if err != nil {
		return fmt.Errorf("delete key in store file: %w", err)
	}
	if len(s.certificates(id)) > 0 {
		return fmt.Errorf("delete key %s in store file: a certificate is tied to the key: %w", id, ErrDenied)
	}
	if err := removeFile(path); err != nil {
		return fmt.Errorf("delete key %s in store file: %w", id, denied(err))
	}
	return nil
}

func (s *fileStore) Keys(context.Context) ([]KeyInfo, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list keys of store file: %w", denied(err))
	}
	var infos []KeyInfo
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".key")
		if !ok || !strings.HasPrefix(name, OurPrefix) || !fileName.MatchString(name) {
			continue
		}
		info := KeyInfo{ID: KeyID(name), Certified: len(s.certificates(KeyID(name))) > 0}
		if key, err := readKey(filepath.Join(s.dir, e.Name())); err == nil {
			info.Public = key.Public()
		}
		if stat, err := e.Info(); err == nil {
			info.Created = stat.ModTime()
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// certificates lists the certificate files of a key, or of all keys if id is
// empty. A folder that cannot be listed has none; whoever then writes or reads
// in it is told why.
func (s *fileStore) certificates(id KeyID) []string {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		owner, rest, ok := strings.Cut(e.Name(), ".")
		if ok && owner != "" && strings.HasSuffix(rest, ".crt") && (id == "" || owner == string(id)) {
			found = append(found, filepath.Join(s.dir, e.Name()))
		}
	}
	return found
}

func (s *fileStore) Install(_ context.Context, id KeyID, chain []*x509.Certificate) error {
	if err := s.install(id, chain); err != nil {
		return fmt.Errorf("install certificate for key %s in store file: %w", id, err)
	}
	return nil
}

func (s *fileStore) install(id KeyID, chain []*x509.Certificate) error {
	path, err := s.keyPath(id)
	if err != nil {
		return err
	}
	key, err := readKey(path)
	if err != nil {
		return err
	}
	if err := checkLeaf(key.Public(), chain); err != nil {
		return err
	}
	sum := sha256.Sum256(chain[0].Raw)
	name := string(id) + "." + hex.EncodeToString(sum[:8]) + ".crt"
	return s.write(filepath.Join(s.dir, name), encodeChain(chain))
}

func encodeChain(chain []*x509.Certificate) []byte {
	var out []byte
	for _, c := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// readChain leaves out what it cannot parse, as programs do that read such files.
func readChain(path string) ([]*x509.Certificate, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, denied(err)
	}
	return parseCertificates(content), nil
}

func parseCertificates(content []byte) []*x509.Certificate {
	var chain []*x509.Certificate
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			chain = append(chain, c)
		}
	}
	return chain
}

func (s *fileStore) Find(_ context.Context, id KeyID) ([]*x509.Certificate, error) {
	path, err := s.keyPath(id)
	if err != nil {
		return nil, fmt.Errorf("find certificate for key in store file: %w", err)
	}
	key, err := readKey(path)
	if err != nil {
		return nil, fmt.Errorf("find certificate for key %s in store file: %w", id, err)
	}
	var all []*x509.Certificate
	for _, file := range s.certificates(id) {
		chain, err := readChain(file)
		if err != nil {
			return nil, fmt.Errorf("find certificate for key %s in store file: %w", id, err)
		}
		all = append(all, chain...)
	}
	leaf, ok := newestFor(key.Public(), all)
	if !ok {
		return nil, fmt.Errorf("find certificate for key %s in store file: %w", id, ErrNotFound)
	}
	return chainOf(leaf, all), nil
}

// Remove takes the certificate out of every file; a file whose leaf it was goes.
func (s *fileStore) Remove(_ context.Context, cert *x509.Certificate) error {
	for _, file := range s.certificates("") {
		if err := s.removeFrom(file, cert); err != nil {
			return fmt.Errorf("remove certificate from store file: %w", denied(err))
		}
	}
	return nil
}

func (s *fileStore) removeFrom(file string, cert *x509.Certificate) error {
	chain, err := readChain(file)
	if err != nil {
		return err
	}
	for i, c := range chain {
		switch {
		case !c.Equal(cert):
		case i == 0:
			return removeFile(file)
		default:
			return s.write(file, encodeChain(append(chain[:i:i], chain[i+1:]...)))
		}
	}
	return nil
}
