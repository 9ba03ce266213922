package roster

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/store"
)

func noon() time.Time { return time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC) }

// fleet files five devices: three that reported on different days, one that
// never did, one that was removed.
func fleet(t *testing.T) store.Store {
	t.Helper()
	db, err := store.OpenBolt(filepath.Join(t.TempDir(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	err = db.Update(t.Context(), func(tx store.Tx) error {
		for i := range 5 {
			d := store.Device{ID: fmt.Sprintf("id%d", i), State: store.Admitted, Joined: noon().AddDate(0, 0, -20), Hostname: fmt.Sprintf("PC-%d", i), OS: "linux", AgentVersion: fmt.Sprintf("1.%d", i)}
			if i == 4 {
				d.State = store.Removed
			}
			if err := PutDevice(tx, d); err != nil {
				return err
			}
			if i >= 3 {
				continue
			}
			report, err := proto.Marshal(&controlv1.SyncRequest{
				Users:       []*controlv1.UserPresence{{User: "uid:1", Account: fmt.Sprintf("CORP\\Üser%d", i)}},
				Credentials: []*controlv1.CredentialReport{{Mailbox: fmt.Sprintf("box%d@example.com", i), Proof: &controlv1.ProofReport{Ok: i > 0}}, {}},
				Conditions:  []*controlv1.ConditionReport{{Code: "consent-waiting", Severity: []string{"info", "warning", "error"}[i]}},
			})
			if err != nil {
				return err
			}
			if err := PutReport(tx, d, report, noon().AddDate(0, 0, -i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func list(t *testing.T, s store.Store, req *controlv1.ListDevicesRequest, live func([]byte) (Contact, bool)) []*controlv1.Device {
	t.Helper()
	var out []*controlv1.Device
	for {
		resp := &controlv1.ListDevicesResponse{}
		next := ""
		err := s.View(func(tx store.Tx) error {
			var wire []byte
			wire, next = Page(tx, req, noon(), live)
			return proto.Unmarshal(wire, resp)
		})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, resp.GetDevices()...)
		if next == "" {
			return out
		}
		req.PageToken = next
	}
}

func TestFilters(t *testing.T) {
	s := fleet(t)
	for name, c := range map[string]struct {
		req  *controlv1.ListDevicesRequest
		want []string
	}{
		"all":             {&controlv1.ListDevicesRequest{}, []string{"id0", "id1", "id2", "id3", "id4"}},
		"pages of two":    {&controlv1.ListDevicesRequest{PageSize: 2}, []string{"id0", "id1", "id2", "id3", "id4"}},
		"state":           {&controlv1.ListDevicesRequest{State: store.Removed}, []string{"id4"}},
		"host":            {&controlv1.ListDevicesRequest{Matches: "pc-3"}, []string{"id3"}},
		"account":         {&controlv1.ListDevicesRequest{Matches: "ÜSER1"}, []string{"id1"}},
		"mailbox":         {&controlv1.ListDevicesRequest{Matches: "Box2@"}, []string{"id2"}},
		"nothing":         {&controlv1.ListDevicesRequest{Matches: "nobody"}, nil},
		"version":         {&controlv1.ListDevicesRequest{Version: "1.1"}, []string{"id1"}},
		"system":          {&controlv1.ListDevicesRequest{Version: "Linux", State: store.Removed}, []string{"id4"}},
		"condition":       {&controlv1.ListDevicesRequest{Condition: "consent-waiting"}, []string{"id0", "id1", "id2"}},
		"part of one":     {&controlv1.ListDevicesRequest{Condition: "consent"}, nil},
		"any problem":     {&controlv1.ListDevicesRequest{Condition: "any"}, []string{"id1", "id2"}},
		"silent":          {&controlv1.ListDevicesRequest{SilentFor: durationpb.New(36 * time.Hour)}, []string{"id2", "id3", "id4"}},
		"silent and size": {&controlv1.ListDevicesRequest{SilentFor: durationpb.New(36 * time.Hour), PageSize: 1}, []string{"id2", "id3", "id4"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range list(t, s, c.req, nil) {
				got = append(got, d.GetId())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("listed %v, want %v", got, c.want)
			}
		})
	}
}

// TestPageBounds: no page has more than may be, whatever is asked for, and none
// begins behind the last device.
func TestPageBounds(t *testing.T) {
	db, err := store.OpenBolt(filepath.Join(t.TempDir(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	add := func(from, to int) {
		err := db.Update(t.Context(), func(tx store.Tx) error {
			for i := from; i < to; i++ {
				if err := PutDevice(tx, store.Device{ID: fmt.Sprintf("id%04d", i), State: store.Admitted, Joined: noon()}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	page := func(size uint32, token string) (n int, next string) {
		resp := &controlv1.ListDevicesResponse{}
		err := db.View(func(tx store.Tx) error {
			var wire []byte
			wire, next = Page(tx, &controlv1.ListDevicesRequest{PageSize: size, PageToken: token}, noon(), nil)
			return proto.Unmarshal(wire, resp)
		})
		if err != nil {
			t.Fatal(err)
		}
		return len(resp.GetDevices()), next
	}
	if n, next := page(0, ""); n != 0 || next != "" {
		t.Errorf("no devices are %d, and go on at %q", n, next)
	}
	add(0, maxPage)
	for _, size := range []uint32{0, maxPage, maxPage + 1, math.MaxUint32} {
		if n, next := page(size, ""); n != maxPage || next != "" {
			t.Errorf("a page of %d has %d devices, and goes on at %q", size, n, next)
		}
	}
	add(maxPage, maxPage+1)
	for _, size := range []uint32{0, maxPage, math.MaxUint32} {
		n, next := page(size, "")
		last, end := page(size, next)
		if n != maxPage || last != 1 || end != "" {
			t.Errorf("pages of %d have %d and %d devices, and go on at %q", size, n, last, end)
		}
	}
	if n, next := page(0, "id9"); n != 0 || next != "" {
		t.Errorf("behind the last are %d devices, and more at %q", n, next)
	}
}

// TestListedIsWhatIsKnown holds the list beside what the records say in full.
func TestListedIsWhatIsKnown(t *testing.T) {
	s := fleet(t)
	next := noon().Add(time.Hour + 5*time.Nanosecond)
	listed := list(t, s, &controlv1.ListDevicesRequest{}, func(id []byte) (Contact, bool) {
		return Contact{Last: noon(), Next: next, Revision: "r7"}, string(id) == "id1"
	})
	if len(listed) != 5 {
		t.Fatalf("%d devices are listed, want 5", len(listed))
	}
	for i, got := range listed {
		want := &controlv1.Device{}
		err := s.View(func(tx store.Tx) error {
			var d store.Device
			if _, err := store.GetJSON(tx, store.Devices, fmt.Appendf(nil, "id%d", i), &d); err != nil {
				return err
			}
			report := &controlv1.SyncRequest{}
			message, _, _ := store.Stamped(tx.Get(store.Statuses, []byte(d.ID)))
			if err := proto.Unmarshal(message, report); err != nil {
				return err
			}
			want = Describe(d, report)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 && (!got.GetLastContact().AsTime().Equal(noon()) || !got.GetNextContact().AsTime().Equal(next) || got.GetPolicyRevision() != "r7") {
			t.Errorf("what is known of the running fleet is not shown: %v", got)
		}
		if heard := got.GetLastContact() != nil; heard != (i < 3) {
			t.Errorf("device %d has a last contact: %v", i, heard)
		}
		got.LastContact, got.NextContact, got.PolicyRevision = nil, nil, ""
		if !proto.Equal(got, want) {
			t.Errorf("listed %v, want %v", got, want)
		}
	}
}

// TestRebuild takes the entries away, as in a store of an earlier version, and
// wants the same again.
func TestRebuild(t *testing.T) {
	s := fleet(t)
	entries := func() map[string][]byte {
		all := map[string][]byte{}
		_ = s.View(func(tx store.Tx) error {
			tx.Range(store.Roster, nil, nil, func(key, value []byte) bool { all[string(key)] = bytes.Clone(value); return true })
			return nil
		})
		return all
	}
	err := s.Update(t.Context(), func(tx store.Tx) error { return PutContact(tx, "id1", noon()) })
	if err != nil {
		t.Fatal(err)
	}
	before := entries()
	err = s.Update(t.Context(), func(tx store.Tx) error {
		for id := range before {
			if err := tx.Delete(store.Roster, []byte(id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second has nothing to do
		if err := Rebuild(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	after := entries()
	if len(after) != 5 {
		t.Fatalf("%d entries, want 5", len(after))
	}
	for id, want := range before {
		if !bytes.Equal(after[id], want) {
			t.Errorf("%s: %q, want %q", id, after[id], want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	entry, err := encode(store.Device{ID: "id0", State: store.Admitted}, &controlv1.SyncRequest{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(entry)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, data []byte) {
		if entry, ok := split(data); ok && len(entry[partJoined]) != 8 {
			t.Error("an entry without its time passes")
		}
	})
}
