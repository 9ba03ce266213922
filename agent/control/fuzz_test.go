package control

import (
	"encoding/pem"
	"testing"
)

// FuzzAnchors: a file of anchors is taken as a whole, or refused in words.
func FuzzAnchors(f *testing.F) {
	ca := newAuthority(f, "CA")
	good := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
	f.Add(good)
	f.Add(append([]byte("# our CA\n"), good...))
	f.Add(good[:len(good)-30])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, anchors []byte) {
		trusted, err := newTrust(anchors, nil, "x.example", nil)
		if err == nil && trusted.roots == nil {
			t.Error("nothing to trust, and no word of it")
		}
	})
}

// FuzzDeviceChain: whatever the server gives for the device's key, only a
// certificate for that key is taken.
func FuzzDeviceChain(f *testing.F) {
	r, err := newRequest("join", "m", "t")
	if err != nil {
		f.Fatal(err)
	}
	ca := newAuthority(f, "CA")
	f.Add(ca.cert.Raw, ca.cert.Raw)
	f.Add([]byte{0x30}, []byte{})
	f.Fuzz(func(t *testing.T, leaf, issuer []byte) {
		if c, err := r.check([][]byte{leaf, issuer}); err == nil && !r.key.PublicKey.Equal(c.PublicKey) {
			t.Error("taken for another key")
		}
	})
}
