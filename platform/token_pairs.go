//go:build cgo || windows

package platform

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"smime-agent/platform/internal/pkcs11"
)

// pair is what is found of one key: both halves, or what a crash or another
// program left of them. Generation writes two objects and giving them their
// ID writes two more, in no common transaction; a process killed in between
// leaves any part of it.
type pair struct {
	label           string
	private, public *pkcs11.Half
	// key is nil where it cannot be known.
	key crypto.PublicKey
	// certified says that a certificate for the key lies in the token.
	certified bool
	// broken says that the private object is there and cannot sign.
	broken bool
}

// whole says that nothing is missing.
func (p pair) whole() bool { return p.private != nil && p.public != nil && p.key != nil && !p.broken }

// finished says that both halves have their final ID, which is the last thing
// that making a key does.
func (p pair) finished() bool {
	return p.whole() && finalID(*p.private, p.key) && finalID(*p.public, p.key)
}

func finalID(h pkcs11.Half, key crypto.PublicKey) bool {
	id, err := pkcs11.KeyID(key)
	return err == nil && bytes.Equal(h.ID, id)
}

// usable says that the key can be opened: it is whole, or it is certified and
// only its public object was lost, which other programs need and we do not.
func (p pair) usable() bool {
	return p.whole() || p.private != nil && p.key != nil && p.certified
}

// halves lists the objects that p is made of, the private one last: a crash in
// the middle of clearing must not leave a public half alone, which a look
// without login would take for a key.
func (p pair) halves() []pkcs11.Half {
	var all []pkcs11.Half
	if p.public != nil {
		all = append(all, *p.public)
	}
	if p.private != nil {
		all = append(all, *p.private)
	}
	return all
}

// findPairs puts the halves with a label (all, if it is empty) together, and
// says which are certified.
func findPairs(ss *pkcs11.Session, label string) ([]pair, []pkcs11.Filed, error) {
	halves, err := ss.KeyHalves(label)
	if err != nil {
		return nil, nil, err
	}
	return certify(ss, pairUp(halves))
}

// findKey is findPairs for who wants to choose a key: where there is no choice,
// one finished pair or nothing, the certificates are not read.
func findKey(ss *pkcs11.Session, label string) ([]pair, error) {
	halves, err := ss.KeyHalves(label)
	if err != nil {
		return nil, err
	}
	pairs := pairUp(halves)
	if len(pairs) == 0 || len(pairs) == 1 && pairs[0].finished() {
		return pairs, nil
	}
	pairs, _, err = certify(ss, pairs)
	return pairs, err
}

func pairUp(halves []pkcs11.Half) []pair {
	var pairs []pair
	for _, h := range halves {
		if h.Private {
			pairs = append(pairs, pair{label: h.Label, private: &h, key: h.Public})
		}
	}
	for _, h := range halves {
		if h.Private {
			continue
		}
		i := slices.IndexFunc(pairs, func(p pair) bool { return p.public == nil && p.private != nil && belong(*p.private, h) })
		if i < 0 {
			pairs = append(pairs, pair{label: h.Label, public: &h, key: h.Public})
			continue
		}
		pairs[i].public, pairs[i].key = &h, h.Public
	}
	return pairs
}

func certify(ss *pkcs11.Session, pairs []pair) ([]pair, []pkcs11.Filed, error) {
	filed, err := ss.Certificates()
	if err != nil {
		return nil, nil, err
	}
	for i := range pairs {
		pairs[i].lookUp(filed)
		if err := pairs[i].probe(ss); err != nil {
			return nil, nil, err
		}
	}
	return pairs, filed, nil
}

// probe lets a key sign that was never finished. SoftHSM writes an object
// attribute by attribute; killed in between, it leaves one that looks like a
// private key and has no value. A finished key is not probed.
func (p *pair) probe(ss *pkcs11.Session) error {
	if !p.whole() || p.certified || p.finished() {
		return nil
	}
	err := signsFor(ss, p.private.Object, p.key)
	if class := pkcs11.ClassOf(err); class == pkcs11.Locked || class == pkcs11.Absent {
		return err
	}
	p.broken = err != nil
	return nil
}

// signsFor says whether a signature by the object verifies with the key.
func signsFor(ss *pkcs11.Session, o pkcs11.Object, key crypto.PublicKey) error {
	digest := sha256.Sum256([]byte("platform: is this key whole?"))
	switch key := key.(type) {
	case *rsa.PublicKey:
		signature, err := ss.SignPKCS1(o, crypto.SHA256, digest[:])
		if err != nil {
			return err
		}
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature)
	case *ecdsa.PublicKey:
		signature, err := ss.SignECDSA(o, key.Curve.Params().BitSize/8, digest[:])
		if err != nil {
			return err
		}
		if !ecdsa.VerifyASN1(key, digest[:], signature) {
			return errors.New("the signature does not verify")
		}
		return nil
	}
	return fmt.Errorf("%w: a key of type %T", ErrUnsupported, key)
}

// belong says that two objects are halves of one key: the same modulus, or an
// ID in common, or, killed between the two changes of ID, a private object
// that already bears the ID of the public key.
func belong(private, public pkcs11.Half) bool {
	if private.Label != public.Label {
		return false
	}
	if private.Public != nil && public.Public != nil {
		return samePublic(private.Public, public.Public)
	}
	if len(private.ID) > 0 && bytes.Equal(private.ID, public.ID) {
		return true
	}
	id, err := pkcs11.KeyID(public.Public)
	return err == nil && bytes.Equal(private.ID, id)
}

// lookUp finds a certificate for the key, and the public key by it.
func (p *pair) lookUp(filed []pkcs11.Filed) {
	for _, f := range filed {
		if p.key == nil && p.private != nil && len(f.ID) > 0 && bytes.Equal(f.ID, p.private.ID) {
			p.key = f.Cert.PublicKey
		}
		if p.key != nil && samePublic(p.key, f.Cert.PublicKey) {
			p.certified = true
		}
	}
}

// best picks the pair that serves: certified before not, with its final ID
// before without, and then always the same.
func best(pairs []pair) (pair, bool) {
	usable := slices.DeleteFunc(slices.Clone(pairs), func(p pair) bool { return !p.usable() })
	if len(usable) == 0 {
		return pair{}, false
	}
	return slices.MinFunc(usable, func(a, b pair) int {
		if rank := rankOf(a) - rankOf(b); rank != 0 {
			return rank
		}
		return bytes.Compare(a.private.ID, b.private.ID)
	}), true
}

func rankOf(p pair) int {
	switch {
	case p.certified:
		return 0
	case p.finished():
		return 1
	}
	return 2
}

// mend gives both halves NSS's ID, again if need be.
func mend(ss *pkcs11.Session, p pair) error {
	id, err := pkcs11.KeyID(p.key)
	if err != nil {
		return err
	}
	if err := ss.SetID(*p.private, id); err != nil {
		return err
	}
	if p.public == nil {
		return nil
	}
	return ss.SetID(*p.public, id)
}

// clearPairs removes what is left of broken attempts: no pair that is kept, and
// no private key that has a certificate.
func clearPairs(ss *pkcs11.Session, pairs []pair, keep func(pair) bool) error {
	for _, p := range pairs {
		if keep(p) || p.private != nil && p.certified {
			continue
		}
		for _, h := range p.halves() {
			if err := ss.Destroy(h.Object); err != nil {
				return err
			}
		}
	}
	return nil
}
