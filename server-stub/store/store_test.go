package store

import (
	"bytes"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func open(t testing.TB, path string) *Bolt {
	t.Helper()
	b, err := OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestSecondServerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.db")
	open(t, path)
	if second, err := OpenBolt(path); err == nil {
		_ = second.Close()
		t.Error("a second server opens the same records")
	}
}

func TestRequestForm(t *testing.T) {
	r := &Request{
		Device: "d1", Enrollment: "smime-1", CSRHash: []byte{1, 2}, Profile: "employee-dual", User: "uid:1000", Store: "nss:default",
		Protection: "software", Replaces: "smime-0", Reason: "first", Department: "销售", State: RequestPending,
		Submitted: time.UnixMilli(1790000000123).UTC(), Refusal: "no", Certificate: []byte{3}, CSR: []byte{4, 5},
		Mailboxes: []string{"a@example.com", "b@example.com"}, Account: "alice", Authority: "est", Issuers: [][]byte{{6}, {7}},
	}
	got, err := DecodeRequest(r.Encode())
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("decoded %+v, %v, want %+v", got, err, r)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add((&Request{Device: "d1", Submitted: time.UnixMilli(1)}).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRequest(data)
		if err != nil {
			return
		}
		again, err := DecodeRequest(r.Encode())
		if err != nil {
			t.Fatalf("%+v does not survive: %v", r, err)
		}
		if again.Device != r.Device || !bytes.Equal(again.Certificate, r.Certificate) {
			t.Errorf("%+v became %+v", r, again)
		}
	})
}
