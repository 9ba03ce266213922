package main

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/agent/oldmail"
	"smime-agent/agent/status"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// drawer is a store with a key of ours and what else is in it.
type drawer struct {
	platform.Store
	ours *x509.Certificate
	held []*x509.Certificate
	err  error
}

func (drawer) Info() platform.StoreInfo { return platform.StoreInfo{Name: "drawer"} }
func (d drawer) Keys(context.Context) ([]platform.KeyInfo, error) {
	return []platform.KeyInfo{{ID: "smime-1", Public: d.ours.PublicKey, Certified: true}}, nil
}

func (d drawer) Find(context.Context, platform.KeyID) ([]*x509.Certificate, error) {
	return []*x509.Certificate{d.ours}, nil
}
func (d drawer) Held(context.Context) ([]*x509.Certificate, error) { return d.held, d.err }

// TestKeysFromElsewhere: mail for a key that the person got before the agent came
// can be opened, and each certificate counts once.
func TestKeysFromElsewhere(t *testing.T) {
	ca := platformtest.NewAuthority(t)
	ours, elsewhere, never := ca.Partner(t, "ann@example.com"), ca.Partner(t, "ann@example.com"), ca.Partner(t, "bob@example.com")
	d := drawer{ours: ours, held: []*x509.Certificate{ours, elsewhere}}
	keys, err := heldIn(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	own := []status.Credential{{ID: "smime-1", Key: "smime-1", Store: "drawer", Issuer: ours.Issuer.String(),
		Serial: oldmail.Of(ours).Serial, KeyID: oldmail.Of(ours).KeyID, State: enroll.Active}}
	for name, records := range map[string][]status.Credential{"on record": own, "without the service": nil} {
		known := map[oldmail.Identity]int{}
		for _, k := range knownKeys(Held{Stores: []string{"drawer"}, Keys: keys}, records) {
			if known[k.Identity]++; k.Presence != oldmail.Here {
				t.Errorf("%s: %+v", name, k)
			}
		}
		if len(known) != 2 || known[oldmail.Of(ours)] != 1 || known[oldmail.Of(elsewhere)] != 1 || known[oldmail.Of(never)] != 0 {
			t.Errorf("%s: %v", name, known)
		}
	}
	d.err = errors.New("locked")
	if _, err := heldIn(t.Context(), d); err == nil {
		t.Error("a store that could not be looked into counts as one that was")
	}
}
