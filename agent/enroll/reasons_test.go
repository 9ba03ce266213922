package enroll

import (
	"slices"
	"testing"
	"time"
)

func TestReasons(t *testing.T) {
	now := time.Unix(1e9, 0)
	base := assignment("uid:1", "a@example.com")
	for _, c := range []struct {
		name   string
		change func(*circumstances)
		want   Reason
	}{
		{"all is well", func(*circumstances) {}, ""},
		{"nothing there", func(c *circumstances) { c.active = nil }, ReasonFirst},
		{"key gone", func(c *circumstances) { c.missing = true }, ReasonRemoved},
		{"revoked", func(c *circumstances) { c.active.e.Revoked = true }, ReasonRevoked},
		{"generation", func(c *circumstances) { c.wanted.Profile.Generation = "2" }, ReasonProfileChanged},
		{"second mailbox", func(c *circumstances) { c.wanted.Mailboxes = append(c.wanted.Mailboxes, "b@example.com") }, ReasonProfileChanged},
		{"no more encryption", func(c *circumstances) { c.wanted.Profile.Encrypt = false }, ReasonProfileChanged},
		{"other key kinds alone", func(c *circumstances) { c.wanted.Profile.Keys = []string{"rsa-2048"} }, ""},
		{"other consent", func(c *circumstances) { c.wanted.Consent = ConsentAsk }, ""},
		{"order of mailboxes", func(c *circumstances) {
			c.active.e.Assignment.Mailboxes = []string{"a@example.com", "b@example.com"}
			c.wanted.Mailboxes = []string{"b@example.com", "a@EXAMPLE.COM"}
		}, ""},
		{"due", func(c *circumstances) { c.active.e.RenewAt = now }, ReasonRenewalDue},
		{"not due", func(c *circumstances) { c.active.e.RenewAt = now.Add(1) }, ""},
		{"person", func(c *circumstances) { c.asked = ReasonPerson }, ReasonPerson},
		{"administrator", func(c *circumstances) { c.asked = ReasonAdministrator }, ReasonAdministrator},
		{"first of many", func(c *circumstances) {
			c.missing, c.active.e.Revoked, c.asked, c.active.e.RenewAt = true, true, ReasonPerson, now
		}, ReasonRemoved},
		{"revoked and due", func(c *circumstances) { c.active.e.Revoked, c.active.e.RenewAt = true, now }, ReasonRevoked},
		{"due and asked", func(c *circumstances) { c.asked, c.active.e.RenewAt = ReasonPerson, now }, ReasonRenewalDue},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := circumstances{wanted: base, active: &entry{e: Enrollment{Assignment: base, State: Active}}, now: now}
			x.wanted.Mailboxes = slices.Clone(base.Mailboxes)
			c.change(&x)
			if got, _ := reasonFor(x); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestWantedStores(t *testing.T) {
	p256 := []string{"p-256"}
	found := []StoreFound{
		{Name: "pkcs11:card", Protection: "hardware", Algorithms: []string{"rsa-2048"}},
		{Name: "nss:default", Protection: "software", Algorithms: p256},
		{Name: "nss:work", Protection: "software", Algorithms: p256},
		{Name: "file", Protection: "software", Algorithms: p256},
	}
	for _, c := range []struct {
		name     string
		patterns []string
		least    string
		keys     []string
		before   []string
		want     []string
	}{
		{"auto is the first that fits", nil, "", p256, nil, []string{"nss:default"}},
		{"auto stays", []string{"auto"}, "", p256, []string{"file"}, []string{"file"}},
		{"auto stays with a store out of reach", nil, "", p256, []string{"pkcs11:gone"}, []string{"pkcs11:gone"}},
		{"auto, hardware", nil, "hardware", []string{"p-256", "rsa-2048"}, nil, []string{"pkcs11:card"}},
		{"auto, hardware for the wrong kind of key", nil, "hardware", p256, nil, nil},
		{"protection nobody knows", nil, "quantum", p256, nil, nil},
		{"each that matches", []string{"nss:*"}, "", p256, nil, []string{"nss:default", "nss:work"}},
		{"each pattern", []string{"file", "nss:*"}, "", p256, nil, []string{"file", "nss:default", "nss:work"}},
		{"once", []string{"nss:default", "nss:*", "auto"}, "", p256, []string{"nss:default"}, []string{"nss:default", "nss:work"}},
		{"a name", []string{"file"}, "", p256, nil, []string{"file"}},
		{"a name is no prefix", []string{"nss"}, "", p256, nil, nil},
		{"a store that matches no longer", []string{"file"}, "", p256, []string{"nss:default"}, []string{"file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := Assignment{Stores: c.patterns, Profile: Profile{Keys: c.keys, MinProtection: c.least}}
			if got := wantedStores(a, found, c.before); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestStatesAndSteps(t *testing.T) {
	for i, st := range lifecycle {
		if st.from.rank() != i || st.to.rank() != i+1 {
			t.Errorf("step %d leads from %s to %s", i, st.from, st.to)
		}
		if got, ok := stepFrom(st.from); !ok || got.to != st.to {
			t.Errorf("no step from %s", st.from)
		}
	}
	for _, s := range []State{Active, Kept, Over, "nonsense"} {
		if _, ok := stepFrom(s); ok || (Enrollment{State: s}).inProgress() {
			t.Errorf("%s leads on", s)
		}
	}
}
