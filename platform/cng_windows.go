package platform

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"smime-agent/platform/internal/wincrypt"
)

// cngProvider is a key storage provider of CNG. It is opened for each use.
type cngProvider struct{ name string }

func (p cngProvider) use(fn func(*wincrypt.Provider) error) error {
	w, err := wincrypt.OpenProvider(p.name)
	if err != nil {
		return err
	}
	return errors.Join(fn(w), w.Close())
}

// probeName is never given to a key.
const probeName = "smime-no-such-key"

// algorithms says which keys the provider makes. One that does not answer
// "missing" to a name that nobody has keeps no keys: Wine opens any provider,
// even one with a nonsensical name, and holds keys in memory only.
func (p cngProvider) algorithms() ([]KeyAlgorithm, error) {
	var list []KeyAlgorithm
	err := p.use(func(w *wincrypt.Provider) error {
		k, err := w.Open(probeName)
		if err == nil {
			return errors.Join(fmt.Errorf("a key is called %s", probeName), k.Close())
		}
		if wincrypt.ClassOf(err) != wincrypt.Missing {
			return err
		}
		list = kindsOf(w)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, windowsError(err))
	}
	return list, nil
}

// kindsOf asks for the lengths too: many TPMs make no RSA keys over 2048 bits.
func kindsOf(w *wincrypt.Provider) []KeyAlgorithm {
	least, most, step, err := w.RSALengths()
	if err != nil {
		least, most, step = 2048, 2048, 0
	}
	var list []KeyAlgorithm
	for _, a := range allAlgorithms() {
		spec := cngSpecs[a]
		switch {
		case w.Supports(spec.signing) != nil:
		case spec.bits != 0 && (spec.bits < least || spec.bits > most || step != 0 && (spec.bits-least)%step != 0):
		default:
			list = append(list, a)
		}
	}
	return list
}

// isTPM2 reads whether the provider calls itself hardware, and its description
// of its chip, e.g. "TPM-Version:2.0 -Level:0-Revision:1.38 …". What does not
// answer gets no key and no claim.
func (p cngProvider) isTPM2() bool {
	const hardware = 1 // NCRYPT_IMPL_HARDWARE_FLAG
	var kind uint32
	var chip string
	err := p.use(func(w *wincrypt.Provider) (err error) {
		if kind, err = w.Number("Impl Type"); err != nil {
			return err
		}
		chip, err = w.Text("PCP_PLATFORM_TYPE")
		return err
	})
	return err == nil && kind&hardware != 0 && strings.HasPrefix(chip, "TPM-Version:2.")
}

// cngSpecs says how the kinds of keys are asked of CNG. An ECDSA key cannot
// agree; an ECDH key also signs (dotnet/corefx#5850), which is how a
// certificate for both is possible, and which Create tries before it believes it.
var cngSpecs = map[KeyAlgorithm]struct {
	signing, both string
	bits          uint32
}{
	RSA2048: {"RSA", "RSA", 2048},
	RSA3072: {"RSA", "RSA", 3072},
	RSA4096: {"RSA", "RSA", 4096},
	P256:    {"ECDSA_P256", "ECDH_P256", 0},
	P384:    {"ECDSA_P384", "ECDH_P384", 0},
}

func (p cngProvider) make(name string, spec KeySpec) error {
	s, ok := cngSpecs[spec.Algorithm]
	if !ok {
		return ErrUnsupported
	}
	wanted := wincrypt.CNGSpec{Algorithm: s.signing, Bits: s.bits, Usage: wincrypt.MaySign}
	if spec.Decrypt {
		wanted.Algorithm = s.both
		wanted.Usage |= wincrypt.MayDecrypt
		if s.bits == 0 {
			wanted.Usage = wincrypt.MaySign | wincrypt.MayAgree
		}
	}
	return p.use(func(w *wincrypt.Provider) error {
		k, err := w.Make(name, wanted)
		if err != nil {
			return err
		}
		return k.Close()
	})
}

func (p cngProvider) names() (names []string, err error) {
	err = p.use(func(w *wincrypt.Provider) error {
		names, err = w.Names()
		return err
	})
	return names, err
}

func (p cngProvider) remove(name string) error {
	return p.use(func(w *wincrypt.Provider) error {
		k, err := w.Open(name)
		if err != nil {
			return err
		}
		if err := k.Delete(); err != nil {
			return errors.Join(err, k.Close())
		}
		return nil
	})
}

func (p cngProvider) open(name string) (windowsHandle, error) {
	w, err := wincrypt.OpenProvider(p.name)
	if err != nil {
		return nil, err
	}
	k, err := w.Open(name)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return cngHandle{CNGKey: k, provider: w, location: wincrypt.KeyLocation{Container: name, Provider: p.name}}, nil
}

// cngHandle is an open key with its provider.
type cngHandle struct {
	*wincrypt.CNGKey
	provider io.Closer
	location wincrypt.KeyLocation
}

func (h cngHandle) Close() error { return errors.Join(h.CNGKey.Close(), h.provider.Close()) }

func (h cngHandle) facts() (windowsFacts, error) {
	public, err := h.public()
	if err != nil {
		return windowsFacts{}, err
	}
	policy, err := h.Number("Export Policy")
	if err != nil && wincrypt.ClassOf(err) != wincrypt.Unsupported { // a chip may have none; then trying decides
		return windowsFacts{}, err
	}
	return windowsFacts{public: public, location: h.location, sealed: policy == 0 && !h.exports()}, nil
}

func (h cngHandle) public() (crypto.PublicKey, error) {
	if blob, err := h.Export("RSAPUBLICBLOB"); err == nil {
		return wincrypt.ParseRSABlob(blob)
	}
	blob, err := h.Export("ECCPUBLICBLOB")
	if err != nil {
		return nil, err
	}
	return wincrypt.ParseECBlob(blob)
}

// exports tries to have the private key: a policy that reads well is not yet
// one that is kept. Wine's CNG hands keys out whatever their policy is.
func (h cngHandle) exports() bool {
	return slices.ContainsFunc([]string{"RSAFULLPRIVATEBLOB", "RSAPRIVATEBLOB", "ECCPRIVATEBLOB", "PKCS8_PRIVATEKEY"}, func(layout string) bool {
		private, err := h.Export(layout)
		clear(private)
		return err == nil
	})
}

// cngHashes are CNG's names (bcrypt.h).
var cngHashes = map[crypto.Hash]string{crypto.SHA1: "SHA1", crypto.SHA256: "SHA256", crypto.SHA384: "SHA384", crypto.SHA512: "SHA512"}

func (h cngHandle) sign(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	public, err := h.public()
	if err != nil {
		return nil, err
	}
	if ec, ok := public.(*ecdsa.PublicKey); ok {
		// A longer digest counts with its leftmost bits only (FIPS 186-5 §6.4.1).
		raw, err := h.SignEC(digest[:min(len(digest), ec.Curve.Params().BitSize/8)])
		if err != nil {
			return nil, err
		}
		return wincrypt.DER(raw)
	}
	hash, ok := cngHashes[opts.HashFunc()]
	if !ok {
		return nil, fmt.Errorf("%w: hash %v", ErrUnsupported, opts.HashFunc())
	}
	pss, ok := opts.(*rsa.PSSOptions)
	if !ok {
		return h.SignPKCS1(hash, digest)
	}
	salt := pss.SaltLength
	if salt == rsa.PSSSaltLengthAuto || salt == rsa.PSSSaltLengthEqualsHash {
		salt = len(digest) // what S/MIME wants (RFC 4056 §2.2)
	}
	return h.SignPSS(hash, salt, digest)
}

func (h cngHandle) decrypt(msg []byte, oaep *rsa.OAEPOptions) ([]byte, error) {
	if oaep == nil {
		return h.DecryptPKCS1(msg)
	}
	hash, ok := cngHashes[oaep.Hash]
	if !ok {
		return nil, fmt.Errorf("%w: hash %v", ErrUnsupported, oaep.Hash)
	}
	return h.DecryptOAEP(hash, oaep.Label, msg)
}

func (h cngHandle) agree(remote []byte) ([]byte, error) { return h.Agree(remote) }
