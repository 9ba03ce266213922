package enroll

import (
	"bytes"
	"testing"
)

// FuzzCheckChain: of all that may come for an order, only what its authority
// signed is believed.
func FuzzCheckChain(f *testing.F) {
	o := order(f)
	good := o.chain(f)
	f.Add(good[0], good[1])
	f.Add(good[1], good[0])
	f.Add(o.ca.root.Raw, good[1])
	f.Add(good[0], []byte{})
	f.Add([]byte{0x30, 0x80}, good[1])
	f.Fuzz(func(t *testing.T, leaf, issuer []byte) {
		rules := o.rules
		if _, err := CheckChain([][]byte{leaf, issuer}, rules); err == nil && !bytes.Equal(leaf, good[0]) {
			t.Errorf("believed: %x", leaf)
		}
		rules.Anchors = append(rules.Anchors, issuer) // an anchor that nobody can read is none
		_, _ = CheckChain([][]byte{leaf}, rules)
	})
}
