package audit_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"smime-agent/server-stub/audit"
)

// TestStrangers: each source has one line a minute, no refused call goes uncounted,
// and many sources have no more lines than some.
func TestStrangers(t *testing.T) {
	var s audit.Strangers
	start := time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)
	lines, counted := 0, 0
	call := func(from string, after time.Duration) bool {
		line := s.Refused(netip.MustParsePrefix(from), start.Add(after))
		if line {
			lines++
		}
		return line
	}
	due := func(after time.Duration) (out []audit.Refusals) {
		out = s.Due(start.Add(after))
		for _, r := range out {
			counted += r.Count
		}
		return out
	}
	for i := range 50 {
		if got := call("192.0.2.1/32", time.Duration(i)*time.Second); got != (i == 0) {
			t.Errorf("call %d gets a line: %v", i, got)
		}
	}
	if !call("2001:db8::/64", 0) {
		t.Error("another source gets no line")
	}
	if got := due(59 * time.Second); len(got) != 0 {
		t.Errorf("within the minute: %v", got)
	}
	got := due(60 * time.Second)
	if len(got) != 1 || got[0].Count != 49 || got[0].From.String() != "192.0.2.1/32" || !got[0].Until.Equal(start.Add(49*time.Second)) {
		t.Errorf("after the minute: %v, want 49 of one source", got)
	}
	if !call("192.0.2.1/32", 61*time.Second) || call("192.0.2.1/32", 0) {
		t.Error("the next minute does not begin with a line, or has two")
	}
	if got := due(0); len(got) != 1 {
		t.Errorf("by a clock that was set back: %v", got)
	}
	lines, counted = 0, 0
	for n := range uint32(5000) {
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], n+1)
		call(netip.PrefixFrom(netip.AddrFrom4(ip), 32).String(), 0)
	}
	for _, r := range s.End() {
		counted += r.Count
	}
	if lines > 101 || lines+counted != 5000 {
		t.Errorf("%d lines, %d counted, of 5000 calls", lines, counted)
	}
	for range 2 {
		if !call("192.0.2.1/32", 0) {
			t.Error("after the end a call gets no line")
		}
	}
}
