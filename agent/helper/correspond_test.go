package helper_test

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/agent/smime"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

func TestPublish(t *testing.T) {
	w := newWorld(t, newStore("mem", platform.P256))
	ctx := t.Context()
	made, err := w.session.MakeRequest(ctx, enroll.RequestWanted{ID: "smime-1", Store: "mem", Keys: []string{"p-256"}, Mailboxes: []string{"a@corp.example"}, Sign: true, Encrypt: true})
	if err != nil {
		t.Fatal(err)
	}
	chain := w.issue(t, made.CSR, nil)
	value, err := w.session.Publish(ctx, enroll.PublishWanted{ID: "smime-1", Store: "mem", Chain: chain, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := smime.Verify(value, []byte{}, smime.Expected{Mailbox: "a@corp.example", Anchors: []*x509.Certificate{w.root}, At: w.now})
	if err != nil || !signed.Time.Equal(w.now.UTC()) {
		t.Errorf("Verify: %v", err)
	}
	stranger := platformtest.NewAuthority(t).Partner(t, "eve@evil.example").Raw
	_, err = w.session.Publish(ctx, enroll.PublishWanted{ID: "smime-1", Store: "mem", Chain: chain, EncryptTo: [][]byte{stranger}, Now: w.now})
	wantError(t, err, enroll.Final, enroll.CodeCertificateRejected)
	_, err = w.session.Publish(ctx, enroll.PublishWanted{ID: "other", Store: "mem", Chain: chain, Now: w.now})
	wantError(t, err, enroll.Final, enroll.CodeInternal)
	_, err = w.session.Publish(ctx, enroll.PublishWanted{ID: "smime-1", Store: "mem", Chain: [][]byte{stranger}, Now: w.now})
	if !errors.Is(err, smime.ErrKey) {
		t.Errorf("for another key: %v", err)
	}
}

func TestFilePartners(t *testing.T) {
	w := newWorld(t)
	good, broken := &platformtest.AddressBook{}, &platformtest.AddressBook{Fail: func(string) error { return platform.ErrLocked }}
	w.session.AddressBooks = func(context.Context) ([]platform.AddressBook, error) {
		return []platform.AddressBook{broken, good}, platform.ErrDenied
	}
	ca := platformtest.NewAuthority(t)
	bob, carol := ca.Partner(t, "bob@partner.example"), ca.Partner(t, "carol@partner.example")
	for _, step := range []struct {
		wanted           []*x509.Certificate
		filed, withdrawn int
	}{{[]*x509.Certificate{bob, carol}, 2, 0}, {[]*x509.Certificate{bob, carol}, 0, 0}, {[]*x509.Certificate{carol}, 0, 1}, {nil, 0, 1}} {
		var raw [][]byte
		for _, c := range step.wanted {
			raw = append(raw, c.Raw)
		}
		done, err := w.session.FilePartners(t.Context(), raw)
		if err != nil {
			t.Fatal(err)
		}
		if done.Filed != step.filed || done.Withdrawn != step.withdrawn || len(good.All()) != len(step.wanted) {
			t.Errorf("%+v, %d there; want %+v", done, len(good.All()), step)
		}
		if len(done.Failures) != 2 || done.Failures[0].Code != enroll.CodeStoreDenied || done.Failures[1].Code != enroll.CodeStoreLocked {
			t.Errorf("failures %+v", done.Failures)
		}
	}
	if _, err := w.session.FilePartners(t.Context(), [][]byte{{1}}); err == nil {
		t.Error("what is no certificate was taken")
	}
}
