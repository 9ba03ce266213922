package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// The modes of files: keys are the owner's alone.
const (
	secretMode = 0o600
	publicMode = 0o644
)

// WriteCertificates writes certificates as PEM to a new file.
func WriteCertificates(path string, certs ...*x509.Certificate) error {
	return writeNew(path, EncodeCertificates(certs...), publicMode)
}

// EncodeCertificates gives certificates as PEM.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// EncodeKey gives a private key as PKCS #8 in PEM.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// WriteKey writes a private key to a new file that only its owner can read.
func WriteKey(path string, key crypto.Signer) error {
	text, err := EncodeKey(key)
	if err != nil {
		return err
	}
	return writeNew(path, text, secretMode)
}

// WriteIdentity writes a certificate and its key to one new file that only its owner can read.
func WriteIdentity(path string, pair Pair) error {
	key, err := EncodeKey(pair.Key)
	if err != nil {
		return err
	}
	return writeNew(path, append(EncodeCertificates(pair.Cert), key...), secretMode)
}

// WriteFile writes public data to a new file.
func WriteFile(path string, data []byte) error { return writeNew(path, data, publicMode) }

// NewP256 makes a key for a TLS identity.
func NewP256() (crypto.Signer, error) { return newKey(false, 0) }

// writeNew never overwrites: a lost CA key cannot be made again.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// ErrFile: a file of the CA holds something else than was written into it.
var ErrFile = errors.New("the file is damaged")

// ReadPair reads certificates (the key's own first) and the key from their files.
func ReadPair(certPath, keyPath string) ([]*x509.Certificate, crypto.Signer, error) {
	certs, err := ReadCertificates(certPath)
	if err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, nil, fmt.Errorf("%s: %w: no PEM block", keyPath, ErrFile)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %w", keyPath, ErrFile, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%s: %w: a key of type %T cannot sign", keyPath, ErrFile, key)
	}
	return certs, signer, nil
}

// ReadCertificates reads all certificates of a PEM file; none is an error.
func ReadCertificates(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", path, ErrFile, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: %w: no certificate in it", path, ErrFile)
	}
	return certs, nil
}
