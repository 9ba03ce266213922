package enroll

import (
	"testing"
	"time"
)

// TestMailCheckIsSeenAgain: what is known of our own keys follows the stores;
// others' keys and others' enrollments stay as they were.
func TestMailCheckIsSeenAgain(t *testing.T) {
	mine := func(id ID, store, user string) Enrollment {
		return Enrollment{ID: id, Store: store, Assignment: Assignment{User: user}}
	}
	all := []Enrollment{mine("smime-a", "file", "ann"), mine("smime-b", "file", "ann"), mine("smime-c", "nss:x", "ann"), mine("smime-d", "file", "bob")}
	all[1].Key = "smime-a" // the key serves again
	old := Inventory{Stores: []StoreFound{{Name: "file"}}}
	found := Inventory{At: time.Unix(1, 0), Stores: []StoreFound{{Name: "file"}}, Keys: []KeyFound{{ID: "smime-a", Store: "file"}}}
	c := MailCheck{User: "ann", Keys: []MailKey{
		{Enrollment: "smime-a", Presence: KeyGone}, {Enrollment: "smime-b", Presence: KeyGone}, {Enrollment: "smime-c", Presence: KeyHere},
		{Enrollment: "smime-d", Presence: KeyHere}, {Serial: "1", Presence: KeyUnknown},
	}}
	want := []KeyPresence{KeyHere, KeyHere, KeyUnseen, KeyHere, KeyUnknown}
	if got := c.Seen(old, all).Keys[3].Presence; got != KeyHere {
		t.Errorf("by a listing that is older: %s", got)
	}
	for i, k := range c.Seen(found, all).Keys {
		if k.Presence != want[i] {
			t.Errorf("key %d is %s, want %s", i, k.Presence, want[i])
		}
	}
	found.Keys = nil
	if got := c.Seen(found, all).Keys[0].Presence; got != KeyGone {
		t.Errorf("a key that went is %s", got)
	}
	if c.Keys[0].Presence != KeyGone || c.Keys[2].Presence != KeyHere {
		t.Error("the check itself was changed")
	}
}
