package enroll

import (
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRenewAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "from"), 0)
		life := time.Duration(rapid.Int64Range(1, 825*86400).Draw(t, "life")) * time.Second
		before := time.Duration(rapid.Int64Range(0, 400*86400).Draw(t, "before")) * time.Second
		leaf := &x509.Certificate{NotBefore: from, NotAfter: from.Add(life), Raw: rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "raw")}
		at := RenewAt(leaf, before, time.Time{})
		if again := RenewAt(leaf, before, time.Time{}); !again.Equal(at) {
			t.Fatalf("drawn anew: %s, %s", at, again)
		}
		if at.Before(from) || !at.Before(leaf.NotAfter) {
			t.Fatalf("%s is not within the life", at)
		}
		lead := leaf.NotAfter.Sub(at)
		if lead < life/3 && before == 0 && lead < 60*day {
			t.Fatalf("only %s before the end", lead)
		}
		if before == 0 && life >= 90*day && lead < 30*day {
			t.Fatalf("%s: an outage of weeks must expire nothing", lead)
		}
		if life > day && at.Sub(from) < life/2 && before == 0 {
			t.Fatalf("after only %s of %s", at.Sub(from), life)
		}
		s := time.Unix(rapid.Int64Range(-1e9, 5e9).Draw(t, "suggested"), 0)
		got := RenewAt(leaf, before, s)
		if sensible := s.After(from) && s.Before(at); sensible && !got.Equal(s) || !sensible && !got.Equal(at) {
			t.Fatalf("suggestion %s, own %s, got %s", s, at, got)
		}
	})
}

// TestRenewAtSpreads: a fleet that got its certificates at once does not renew
// at once (faults.md F15).
func TestRenewAtSpreads(t *testing.T) {
	from := time.Unix(0, 0)
	perDay := map[int]int{}
	const fleet = 14000
	for i := range fleet {
		leaf := &x509.Certificate{NotBefore: from, NotAfter: from.Add(365 * day), Raw: big.NewInt(int64(i)).Bytes()}
		perDay[int(RenewAt(leaf, 0, time.Time{}).Sub(from)/day)]++
	}
	for d, n := range perDay {
		if n > 2*fleet/14 {
			t.Errorf("%d of %d on day %d", n, fleet, d)
		}
	}
}
