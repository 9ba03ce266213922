package platformtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"smime-agent/platform"
)

// Store is a [platform.Store] and [platform.Truster] in memory. It keeps what
// it holds while its users come and go, as a real store does. It is safe for
// concurrent use.
type Store struct {
	// StoreInfo is what Info answers.
	StoreInfo platform.StoreInfo
	// Fail, if set, is called before and after each effect, with the operation
	// and the moment: "create:before", "create:half" (only half the key is there),
	// "create:after"; so with open, delete, keys, install ("install:half": the
	// issuers are filed, the leaf is not), find, remove, trust, sign, decrypt,
	// agree. What it returns is the operation's error. It is called without lock.
	Fail func(op string) error
	// Now stamps new keys; time.Now if nil.
	Now func() time.Time

	mu      sync.Mutex
	keys    map[platform.KeyID]*memoryKey
	certs   []*x509.Certificate
	trusted []*x509.Certificate
}

// NewStore gives an empty store of that name that claims software protection
// and makes every kind of key.
func NewStore(name string) *Store {
	return &Store{StoreInfo: platform.StoreInfo{
		Name: name, Protection: platform.Software,
		Algorithms: []platform.KeyAlgorithm{
			platform.P256, platform.P384, platform.RSA2048, platform.RSA3072, platform.RSA4096,
		},
		Consumers: []string{"test"},
	}}
}

type memoryKey struct {
	private crypto.Signer // nil for half a key
	created time.Time
}

// Info implements [platform.Store].
func (s *Store) Info() platform.StoreInfo { return s.StoreInfo }

// around calls Fail before and after an effect.
func (s *Store) around(ctx context.Context, op string, effect func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.fail(op + ":before"); err != nil {
		return err
	}
	if err := effect(); err != nil {
		return fmt.Errorf("%s in store %s: %w", op, s.StoreInfo.Name, err)
	}
	return s.fail(op + ":after")
}

func (s *Store) fail(op string) error {
	if s.Fail == nil {
		return nil
	}
	return s.Fail(op)
}

// Create implements [platform.KeyStore].
func (s *Store) Create(ctx context.Context, id platform.KeyID, spec platform.KeySpec) (platform.Key, error) {
	var made *memoryKey
	err := s.around(ctx, "create", func() (err error) {
		if made, err = s.reserve(id, spec); err != nil {
			return err
		}
		private, err := generate(spec.Algorithm)
		if err != nil {
			return err
		}
		if err := s.fail("create:half"); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		made.private = private
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.open(id, made.private), nil
}

func (s *Store) reserve(id platform.KeyID, spec platform.KeySpec) (*memoryKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.keys[id]; ok && old.private != nil {
		return nil, platform.ErrExists
	}
	if !slices.Contains(s.StoreInfo.Algorithms, spec.Algorithm) {
		return nil, fmt.Errorf("%w: no keys of kind %q", platform.ErrUnsupported, spec.Algorithm)
	}
	if s.keys == nil {
		s.keys = map[platform.KeyID]*memoryKey{}
	}
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	s.keys[id] = &memoryKey{created: now()}
	return s.keys[id], nil
}

func generate(algorithm platform.KeyAlgorithm) (crypto.Signer, error) {
	switch algorithm {
	case platform.RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case platform.RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case platform.RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case platform.P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case platform.P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, fmt.Errorf("%w: no keys of kind %q", platform.ErrUnsupported, algorithm)
}

// Open implements [platform.KeyStore].
func (s *Store) Open(ctx context.Context, id platform.KeyID) (platform.Key, error) {
	var private crypto.Signer
	err := s.around(ctx, "open", func() (err error) {
		private, err = s.private(id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.open(id, private), nil
}

func (s *Store) private(id platform.KeyID) (crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.keys[id]; ok && k.private != nil {
		return k.private, nil
	}
	return nil, platform.ErrNotFound
}

// Delete implements [platform.KeyStore].
func (s *Store) Delete(ctx context.Context, id platform.KeyID) error {
	return s.around(ctx, "delete", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.certified(s.keys[id]) {
			return platform.ErrDenied
		}
		delete(s.keys, id)
		return nil
	})
}

// Lose removes a key or half a key, certified or not, as a cleared TPM or a
// person with certutil would.
func (s *Store) Lose(id platform.KeyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, id)
}

func (s *Store) certified(k *memoryKey) bool {
	return k != nil && k.private != nil && slices.ContainsFunc(s.certs, func(c *x509.Certificate) bool {
		return samePublic(k.private.Public(), c.PublicKey)
	})
}

func samePublic(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// Keys implements [platform.KeyStore].
func (s *Store) Keys(ctx context.Context) ([]platform.KeyInfo, error) {
	var infos []platform.KeyInfo
	err := s.around(ctx, "keys", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for id, k := range s.keys {
			if !strings.HasPrefix(string(id), platform.OurPrefix) {
				continue
			}
			info := platform.KeyInfo{ID: id, Certified: s.certified(k), Created: k.created}
			if k.private != nil {
				info.Public = k.private.Public()
			}
			infos = append(infos, info)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(infos, func(a, b platform.KeyInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return infos, nil
}

// Install implements [platform.CertStore].
func (s *Store) Install(ctx context.Context, id platform.KeyID, chain []*x509.Certificate) error {
	return s.around(ctx, "install", func() error {
		private, err := s.private(id)
		if err != nil {
			return err
		}
		if len(chain) == 0 || !samePublic(private.Public(), chain[0].PublicKey) {
			return fmt.Errorf("the certificate is not for key %s", id)
		}
		s.file(chain[1:]...)
		if err := s.fail("install:half"); err != nil {
			return err
		}
		s.file(chain[0])
		return nil
	})
}

func (s *Store) file(certs ...*x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range certs {
		if !slices.ContainsFunc(s.certs, c.Equal) {
			s.certs = append(s.certs, c)
		}
	}
}

// Find implements [platform.CertStore].
func (s *Store) Find(ctx context.Context, id platform.KeyID) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	err := s.around(ctx, "find", func() error {
		private, err := s.private(id)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.certs {
			if samePublic(private.Public(), c.PublicKey) && (chain == nil || c.NotBefore.After(chain[0].NotBefore)) {
				chain = []*x509.Certificate{c}
			}
		}
		if chain == nil {
			return platform.ErrNotFound
		}
		for grown := true; grown; {
			chain, grown = s.climb(chain)
		}
		return nil
	})
	return chain, err
}

// climb adds the issuer of the chain's end, if the store has it.
func (s *Store) climb(chain []*x509.Certificate) ([]*x509.Certificate, bool) {
	last := chain[len(chain)-1]
	for _, c := range s.certs {
		if bytes.Equal(c.RawSubject, last.RawIssuer) && !slices.ContainsFunc(chain, c.Equal) && last.CheckSignatureFrom(c) == nil {
			return append(chain, c), true
		}
	}
	return chain, false
}

// Remove implements [platform.CertStore].
func (s *Store) Remove(ctx context.Context, cert *x509.Certificate) error {
	return s.around(ctx, "remove", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.certs = slices.DeleteFunc(s.certs, cert.Equal)
		return nil
	})
}

// Trust implements [platform.Truster].
func (s *Store) Trust(ctx context.Context, anchor *x509.Certificate) error {
	return s.around(ctx, "trust", func() error {
		s.file(anchor)
		s.mu.Lock()
		defer s.mu.Unlock()
		if !slices.ContainsFunc(s.trusted, anchor.Equal) {
			s.trusted = append(s.trusted, anchor)
		}
		return nil
	})
}

// Trusted lists the anchors that Trust was called with.
func (s *Store) Trusted() []*x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.trusted)
}

// openKey is a key in use; each use asks Fail.
type openKey struct {
	store *Store
	id    platform.KeyID
	key   crypto.Signer
}

type openRSA struct{ openKey }

type openEC struct{ openKey }

func (s *Store) open(id platform.KeyID, private crypto.Signer) platform.Key {
	k := openKey{s, id, private}
	if _, ok := private.(*rsa.PrivateKey); ok {
		return openRSA{k}
	}
	return openEC{k}
}

func (k openKey) ID() platform.KeyID       { return k.id }
func (k openKey) Public() crypto.PublicKey { return k.key.Public() }
func (k openKey) Close() error             { return nil }

// use runs an operation if the key is still in the store.
func (k openKey) use(op string, fn func() error) error {
	return k.store.around(context.Background(), op, func() error {
		if _, err := k.store.private(k.id); err != nil {
			return err
		}
		return fn()
	})
}

func (k openKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	err = k.use("sign", func() error {
		signature, err = k.key.Sign(rand.Reader, digest, opts)
		return err
	})
	return signature, err
}

func (k openRSA) Decrypt(_ io.Reader, msg []byte, opts crypto.DecrypterOpts) (plain []byte, err error) {
	err = k.use("decrypt", func() error {
		decrypter, ok := k.key.(crypto.Decrypter)
		if !ok {
			return platform.ErrUnsupported
		}
		plain, err = decrypter.Decrypt(rand.Reader, msg, opts)
		return err
	})
	return plain, err
}

func (k openEC) ECDH(remote *ecdh.PublicKey) (secret []byte, err error) {
	err = k.use("agree", func() error {
		private, ok := k.key.(*ecdsa.PrivateKey)
		if !ok {
			return platform.ErrUnsupported
		}
		own, err := private.ECDH()
		if err != nil {
			return err
		}
		secret, err = own.ECDH(remote)
		return err
	})
	return secret, err
}
