package smime

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // old mail is in 3DES; never used to encrypt
	"crypto/rand"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// contentCipher is a cipher for the content of a message.
type contentCipher struct {
	oid       asn1.ObjectIdentifier
	name      string
	keySize   int
	newCipher func(key []byte) (cipher.Block, error)
	gcm       bool
}

// contentCiphers is what is read: AES, and 3DES for mail that is old enough.
// RC2 and DES are refused.
func contentCiphers() []contentCipher {
	return []contentCipher{
		{oidAES256CBC, "aes-256-cbc", 32, aes.NewCipher, false},
		{oidAES192CBC, "aes-192-cbc", 24, aes.NewCipher, false},
		{oidAES128CBC, "aes-128-cbc", 16, aes.NewCipher, false},
		{oidAES256GCM, "aes-256-gcm", 32, aes.NewCipher, true},
		{oidAES192GCM, "aes-192-gcm", 24, aes.NewCipher, true},
		{oidAES128GCM, "aes-128-gcm", 16, aes.NewCipher, true},
		{oidDES3CBC, "3des-cbc", 24, des.NewTripleDESCipher, false},
	}
}

func cipherByOID(oid asn1.ObjectIdentifier) (contentCipher, error) {
	for _, c := range contentCiphers() {
		if c.oid.Equal(oid) {
			return c, nil
		}
	}
	return contentCipher{}, fmt.Errorf("%w: content cipher %s", ErrUnsupported, oid)
}

// sealed is encrypted content as it stands in a message.
type sealed struct {
	algorithm  []byte // AlgorithmIdentifier, DER
	ciphertext []byte
	mac        []byte // GCM only
}

// sealCBC encrypts by AES-256-CBC with the padding of RFC 5652 §6.3.
func sealCBC(key, content []byte) (sealed, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealed{}, err
	}
	iv := make([]byte, aes.BlockSize)
	_, _ = rand.Read(iv) // never fails (crypto/rand)
	pad := aes.BlockSize - len(content)%aes.BlockSize
	padded := make([]byte, len(content)+pad)
	copy(padded, content)
	for i := len(content); i < len(padded); i++ {
		padded[i] = byte(pad)
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(padded, padded)
	b := cryptobyte.NewBuilder(nil)
	addAlgorithmWith(b, oidAES256CBC, func(b *cryptobyte.Builder) { b.AddASN1OctetString(iv) })
	algorithm, err := b.Bytes()
	return sealed{algorithm: algorithm, ciphertext: padded}, err
}

// sealGCM encrypts by AES-256-GCM (RFC 5084 §3.2): nonce of 12, tag of 16 octets.
func sealGCM(key, content []byte) (sealed, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealed{}, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return sealed{}, err
	}
	nonce := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(nonce)                   // never fails (crypto/rand)
	out := gcm.Seal(nil, nonce, content, nil) //nolint:gosec // random since two lines
	b := cryptobyte.NewBuilder(nil)
	addAlgorithmWith(b, oidAES256GCM, func(b *cryptobyte.Builder) {
		b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1OctetString(nonce)
			b.AddASN1Int64(int64(gcm.Overhead()))
		})
	})
	algorithm, err := b.Bytes()
	return sealed{algorithm, out[:len(content)], out[len(content):]}, err
}

// openCBC decrypts. Padding is no integrity: content that was changed can come
// out as other content.
func (c contentCipher) openCBC(key []byte, params cryptobyte.String, ciphertext []byte) ([]byte, error) {
	block, err := c.newCipher(key)
	if err != nil {
		return nil, fmt.Errorf("%w: content key", ErrDecrypt)
	}
	var iv cryptobyte.String
	if !params.ReadASN1(&iv, cryptoasn1.OCTET_STRING) || len(iv) != block.BlockSize() {
		return nil, fmt.Errorf("%w: initialization vector", ErrMalformed)
	}
	if len(ciphertext) == 0 || len(ciphertext)%block.BlockSize() != 0 {
		return nil, fmt.Errorf("%w: length of the encrypted content", ErrMalformed)
	}
	out := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, ciphertext)
	pad := int(out[len(out)-1])
	if pad == 0 || pad > block.BlockSize() {
		return nil, fmt.Errorf("%w: padding", ErrDecrypt)
	}
	for _, b := range out[len(out)-pad:] {
		if int(b) != pad {
			return nil, fmt.Errorf("%w: padding", ErrDecrypt)
		}
	}
	return out[:len(out)-pad], nil
}

// openGCM decrypts and authenticates. aad is the DER of the authenticated
// attributes, if there are any (RFC 5083 §2.2).
func (c contentCipher) openGCM(key []byte, params cryptobyte.String, s sealed, aad []byte) ([]byte, error) {
	var body, nonce cryptobyte.String
	tagSize := 12 // the default of RFC 5084 §3.2
	if !params.ReadASN1(&body, cryptoasn1.SEQUENCE) || !body.ReadASN1(&nonce, cryptoasn1.OCTET_STRING) ||
		!body.Empty() && !body.ReadASN1Integer(&tagSize) {
		return nil, fmt.Errorf("%w: parameters of the content cipher", ErrMalformed)
	}
	if len(nonce) != 12 || tagSize < 12 || tagSize > 16 || len(s.mac) != tagSize {
		return nil, fmt.Errorf("%w: size of nonce or tag", ErrUnsupported)
	}
	block, err := c.newCipher(key)
	if err != nil {
		return nil, fmt.Errorf("%w: content key", ErrDecrypt)
	}
	gcm, err := cipher.NewGCMWithTagSize(block, tagSize)
	if err != nil {
		return nil, fmt.Errorf("%w: content cipher", ErrUnsupported)
	}
	both := make([]byte, 0, len(s.ciphertext)+len(s.mac))
	both = append(append(both, s.ciphertext...), s.mac...)
	out, err := gcm.Open(both[:0], nonce, both, aad)
	if err != nil {
		return nil, fmt.Errorf("%w: content was changed", ErrDecrypt)
	}
	return out, nil
}
