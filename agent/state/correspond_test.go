package state

import (
	"path/filepath"
	"reflect"
	"testing"
)

// TestCorrespondenceIsKept: what is kept for partners and the directory is there
// after the next start, in the place of what was before; nothing is no error.
func TestCorrespondenceIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	d, _ := mustOpen(t, path)
	none, err := d.Partners()
	if err != nil || !reflect.DeepEqual(none, Partners{}) {
		t.Fatalf("%+v, %v", none, err)
	}
	if all, err := d.Publications(); err != nil || all == nil || len(all) != 0 {
		t.Fatalf("%v, %v", all, err)
	}
	first := Partners{Digest: "d1", Certificates: [][]byte{{1}, {2, 3}}, Had: true}
	last := Partners{Digest: "d2", Had: true}
	before := map[string]Publication{"smime-1": {Value: []byte{4}, Leaf: "aa", EncryptTo: "bb"}, "smime-2": {Value: []byte{5}}}
	after := map[string]Publication{"smime-2": {Value: []byte{6}, Leaf: "cc", EncryptTo: "cc"}}
	for _, step := range []struct {
		partners Partners
		values   map[string]Publication
	}{{first, before}, {last, after}} {
		if err := d.SavePartners(step.partners); err != nil {
			t.Fatal(err)
		}
		if err := d.SavePublications(step.values); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		d, _ = mustOpen(t, path)
		if got, err := d.Partners(); err != nil || !reflect.DeepEqual(got, step.partners) {
			t.Errorf("%+v, %v, want %+v", got, err, step.partners)
		}
		if got, err := d.Publications(); err != nil || !reflect.DeepEqual(got, step.values) {
			t.Errorf("%+v, %v, want %+v", got, err, step.values)
		}
	}
	if err := d.SaveSync(Sync{}); err != nil { // its neighbour in the bucket
		t.Fatal(err)
	}
	if got, err := d.Partners(); err != nil || got.Digest != "d2" {
		t.Errorf("%+v, %v", got, err)
	}
	mustClose(t, d)
	if err := d.SavePartners(first); err == nil {
		t.Error("kept in a record that is closed")
	}
	if _, err := d.Publications(); err == nil {
		t.Error("read from a record that is closed")
	}
}
