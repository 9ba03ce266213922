package ca

import (
	"bytes"
	"math/bits"
	"testing"
	"time"
)

// TestSerials looks for what BR 7.1 asks: positive, at most 20 octets, never
// twice, and 64 bits that come from nowhere.
func TestSerials(t *testing.T) {
	const n = 20_000
	var serials Serials
	now := time.Now()
	seen := make(map[Serial]bool, n)
	var last Serial
	var ones [64]int
	for i := range n {
		s := serials.Next(now.Add(time.Duration(i) * time.Microsecond))
		if seen[s] || bytes.Compare(s[:], last[:]) <= 0 {
			t.Fatalf("%s after %s", s, last)
		}
		seen[s], last = true, s
		if s.Int().Sign() <= 0 || len(s.Int().Bytes()) != SerialSize || s.Int().Text(16) != s.String() {
			t.Fatalf("%s is no proper number", s)
		}
		if back, err := ParseSerial(s.String()); err != nil || back != s {
			t.Fatalf("%s read back is %s, %v", s, back, err)
		}
		for bit := range ones {
			ones[bit] += bits.OnesCount8(s[10+bit/8] >> (bit % 8) & 1)
		}
	}
	for bit, count := range ones {
		// Six standard deviations of a fair coin: 6·√(n/4).
		if d := count - n/2; d > 425 || d < -425 {
			t.Errorf("bit %d of the random part is set %d of %d times", bit, count, n)
		}
	}
}

func TestParseSerialRefuses(t *testing.T) {
	for _, text := range []string{"", "12", "zz", "4199aa4199aa4199aa4199aa4199aa4199aa00"} {
		if _, err := ParseSerial(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
