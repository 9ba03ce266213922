package control

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"time"

	"smime-agent/agent/enroll"
)

// identity is this device as the server knows it.
type identity struct {
	device, organization, machine string
	key                           *ecdsa.PrivateKey
	chain                         [][]byte
	leaf                          *x509.Certificate
}

// request is a key whose certificate has been asked for. It is stored before
// the question is sent, so that after a lost answer the same is asked again.
type request struct {
	// purpose is "join" or "renew"; machine and token (a hash) are those it was
	// made for. Another token or machine gets another key.
	purpose, machine, token string
	key                     *ecdsa.PrivateKey
	csr                     []byte
}

// ring is the value of the secret: written as one, so there is never a key
// without its certificate.
type ring struct {
	identity *identity
	next     *request
}

func (id *identity) name() string {
	if id == nil {
		return ""
	}
	sum := sha256.Sum256(id.leaf.Raw)
	return hex.EncodeToString(sum[:])
}

func (id *identity) certificate() *tls.Certificate {
	if id == nil {
		return nil
	}
	return &tls.Certificate{Certificate: id.chain, PrivateKey: id.key, Leaf: id.leaf}
}

// renewAt is at half of the life, later by up to a tenth: a spread drawn from
// the certificate, so that every look gives the same moment.
func (id *identity) renewAt() time.Time {
	life := id.leaf.NotAfter.Sub(id.leaf.NotBefore)
	sum := sha256.Sum256(id.leaf.Raw)
	spread := time.Duration(binary.BigEndian.Uint16(sum[:2])) * (life / 10 / 65536)
	return id.leaf.NotBefore.Add(life/2 + spread)
}

// check holds a chain that the server gave against the key it is for.
func (r *request) check(chain [][]byte) (*x509.Certificate, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fmt.Errorf("%w: device chain of %d certificates", errAnswer, len(chain))
	}
	var leaf *x509.Certificate
	for i, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: device chain: %w", errAnswer, err)
		}
		if i == 0 {
			leaf = cert
		}
	}
	if pub, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(&r.key.PublicKey) {
		return nil, fmt.Errorf("%w: device certificate is for another key", errAnswer)
	}
	if !leaf.NotAfter.After(leaf.NotBefore) {
		return nil, fmt.Errorf("%w: device certificate has no life", errAnswer)
	}
	return leaf, nil
}

func newRequest(purpose, machine, token string) (*request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make device key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make device CSR: %w", err)
	}
	return &request{purpose, machine, token, key, csr}, nil
}

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte("smime-agent join token\x00" + token))
	return hex.EncodeToString(sum[:8])
}

// PEM block types and headers of the secret.
const (
	blockKey   = "PRIVATE KEY"
	blockCert  = "CERTIFICATE"
	blockCSR   = "CERTIFICATE REQUEST"
	headerRole = "Role" // "current", "join" or "renew"
	roleNow    = "current"
)

func (r ring) encode() ([]byte, error) {
	var out bytes.Buffer
	write := func(kind string, der []byte, headers map[string]string) error {
		for k, v := range headers {
			if k != headerRole {
				headers[k] = strconv.QuoteToASCII(v)
			}
		}
		return pem.Encode(&out, &pem.Block{Type: kind, Bytes: der, Headers: headers})
	}
	var errs []error
	if id := r.identity; id != nil {
		der, err := x509.MarshalPKCS8PrivateKey(id.key)
		errs = append(errs, err, write(blockKey, der, map[string]string{
			headerRole: roleNow, "Device": id.device, "Organization": id.organization, "Machine": id.machine,
		}))
		for _, c := range id.chain {
			errs = append(errs, write(blockCert, c, nil))
		}
	}
	if n := r.next; n != nil {
		der, err := x509.MarshalPKCS8PrivateKey(n.key)
		errs = append(errs, err, write(blockKey, der, map[string]string{
			headerRole: n.purpose, "Machine": n.machine, "Token": n.token,
		}), write(blockCSR, n.csr, nil))
	}
	return out.Bytes(), errors.Join(errs...)
}

func decodeRing(raw []byte) (ring, error) {
	var r ring
	for {
		block, rest := pem.Decode(raw)
		if block == nil {
			break
		}
		raw = rest
		if err := r.take(block); err != nil {
			return ring{}, fmt.Errorf("read %s: %w", SecretName, err)
		}
	}
	if id := r.identity; id != nil {
		leaf, err := (&request{key: id.key}).check(id.chain)
		if err != nil {
			return ring{}, fmt.Errorf("read %s: %w", SecretName, err)
		}
		id.leaf = leaf
	}
	if (r.next != nil && len(r.next.csr) == 0) || (r.identity == nil && r.next == nil) {
		return ring{}, fmt.Errorf("read %s: it is not whole", SecretName)
	}
	return r, nil
}

func (r *ring) take(block *pem.Block) error {
	switch block.Type {
	case blockCert:
		if r.identity == nil {
			return errors.New("certificate without key")
		}
		r.identity.chain = append(r.identity.chain, block.Bytes)
		return nil
	case blockCSR:
		if r.next == nil {
			return errors.New("CSR without key")
		}
		r.next.csr = block.Bytes
		return nil
	case blockKey:
		return r.takeKey(block)
	}
	return fmt.Errorf("block of type %q", block.Type)
}

func (r *ring) takeKey(block *pem.Block) error {
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return errors.New("key is not P-256")
	}
	header := func(name string) string {
		v, _ := strconv.Unquote(block.Headers[name]) // absent is empty
		return v
	}
	if role := block.Headers[headerRole]; role != roleNow {
		r.next = &request{purpose: role, machine: header("Machine"), token: header("Token"), key: key}
		return nil
	}
	r.identity = &identity{device: header("Device"), organization: header("Organization"), machine: header("Machine"), key: key}
	return nil
}

// load reads the ring; an empty one if there is none. broken says that there is
// one which cannot be read.
func (c *Client) load(ctx context.Context) (r ring, broken error, err error) {
	raw, err := c.cfg.Secrets.Get(ctx, SecretName)
	switch {
	case err != nil && c.cfg.Absent(err):
		return ring{}, nil, nil
	case err != nil:
		return ring{}, nil, secretsFailed("read device identity", err)
	}
	r, broken = decodeRing(raw)
	return r, broken, nil
}

func (c *Client) store(ctx context.Context, r ring) error {
	raw, err := r.encode()
	if err == nil {
		err = c.cfg.Secrets.Put(ctx, SecretName, raw)
	}
	if err != nil {
		return secretsFailed("store device identity", err)
	}
	return nil
}

func secretsFailed(what string, err error) *enroll.Error {
	return &enroll.Error{
		Kind: enroll.Transient, Code: CodeSecretsFailed,
		Hint: "The agent cannot reach the secret store of this machine. Check the disk and the agent's rights.",
		Err:  fmt.Errorf("%s: %w", what, err),
	}
}
