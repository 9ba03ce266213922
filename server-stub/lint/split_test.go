package lint

import (
	"crypto/elliptic"
	"testing"
)

// FuzzSplit takes certificates apart that nobody has looked at yet.
func FuzzSplit(f *testing.F) {
	der := sign(f, sponsor(f), ecPublic(f, elliptic.P256()))
	f.Add(der)
	f.Add(der[:len(der)/2])
	f.Fuzz(func(t *testing.T, der []byte) {
		p, ok := split(der)
		if ok && (p.skeleton == "" || len(p.tbs) == 0) {
			t.Errorf("%+v", p)
		}
	})
}
