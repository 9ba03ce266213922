package stub_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/stub"
)

// TestBeliefsAreAudited: the audit log has a line when a device makes central believe
// otherwise than before whether a credential works or how its key is kept, and when it
// offers a value for the directory; and none for a poll that brings nothing of it.
func TestBeliefsAreAudited(t *testing.T) {
	s := start(t, stub.Options{})
	d := admittedDevice(t, s, alice())
	good, failed := &controlv1.ProofReport{Ok: true, Signs: true, Decrypts: true}, &controlv1.ProofReport{Failure: "The key is gone."}
	report := func(proof *controlv1.ProofReport, protection, condition string) {
		t.Helper()
		req := &controlv1.SyncRequest{Users: []*controlv1.UserPresence{alice()}}
		if protection != "" {
			req.Credentials = []*controlv1.CredentialReport{{
				EnrollmentId: "smime-1", User: "uid:1000", Mailbox: "alice@example.com", State: "active", Serial: "0a", Protection: protection, Proof: proof,
			}}
		}
		if condition != "" {
			req.Conditions = []*controlv1.ConditionReport{{Code: condition, Severity: "warning"}}
		}
		if _, err := d.Sync(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	report(nil, "hardware", "")
	report(good, "hardware", "")
	report(good, "hardware", "")
	report(good, "hardware", "store-locked")
	report(failed, "hardware", "")
	report(failed, "software", "")
	report(nil, "", "")
	_, err := d.Publish(t.Context(), &controlv1.PublishRequest{EnrollmentId: "smime-1", Value: []byte("no value")})
	wantReason(t, err, "PUBLICATION_INVALID")
	want := []string{
		"CredentialChanged none good hardware hardware", "CredentialChanged good failed hardware hardware",
		"CredentialChanged failed failed hardware software", "CredentialChanged failed gone software software", "Publish    ",
	}
	text, err := os.ReadFile(filepath.Join(s.Dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		var e struct {
			Msg, By, Role, From, Enrollment, Mailbox, Proof, Protection string
			ProofBefore                                                 string `json:"proof_before"`
			ProtectionBefore                                            string `json:"protection_before"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Msg != "CredentialChanged" && e.Msg != "Publish" {
			continue
		}
		if e.By != d.id || e.Role != "device" || e.From == "" || e.Enrollment != "smime-1" || e.Msg != "Publish" && e.Mailbox != "alice@example.com" {
			t.Errorf("it does not say whose: %s", line)
		}
		got = append(got, strings.Join([]string{e.Msg, e.ProofBefore, e.Proof, e.ProtectionBefore, e.Protection}, " "))
	}
	if !slices.Equal(got, want) {
		t.Errorf("audited %q, want %q", got, want)
	}
}

// TestPartnersStayTheSame: a server that is started anew hands out the same set as
// before, though a certificate has ended since: else devices that call now at this
// server and now at another would fetch the set again and again.
func TestPartnersStayTheSame(t *testing.T) {
	c := &clock{}
	dir := t.TempDir()
	s := start(t, stub.Options{Dir: dir, Now: c.now})
	d := admittedDevice(t, s, alice())
	key := p256(t)
	var files []*controlv1.PartnerFile
	for n := range int64(4) {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(n + 1), Subject: pkix.Name{CommonName: "Bob"}, EmailAddresses: []string{"bob@partner.example"},
			NotBefore: c.now().Add(-time.Hour), NotAfter: c.now().Add(time.Duration(n+1) * 24 * time.Hour),
			KeyUsage: x509.KeyUsageKeyAgreement, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, &controlv1.PartnerFile{Name: "partners/" + string(rune('d'-n)) + ".cer", Content: der})
	}
	_, err := s.Admin.ApplyPolicy(t.Context(), &controlv1.ApplyPolicyRequest{
		PolicyYaml: []byte(policyOf("auto", "new-key") + "partners: [partners]\n"), PeopleCsv: []byte(threePeople), Partners: files,
	})
	if err != nil {
		t.Fatal(err)
	}
	partners := func() *controlv1.PartnerSet {
		t.Helper()
		got, err := d.Sync(t.Context(), &controlv1.SyncRequest{Users: []*controlv1.UserPresence{alice()}, PartnersDigest: "none"})
		if err != nil || got.GetPartners() == nil {
			t.Fatalf("%v, %v", got, err)
		}
		return got.GetPartners()
	}
	before := partners()
	if len(before.GetCertificates()) != len(files) {
		t.Fatalf("%d certificates of %d", len(before.GetCertificates()), len(files))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.advance(36 * time.Hour) // one has ended
	s = start(t, stub.Options{Dir: dir, Now: c.now})
	d = reconnect(t, s, d, c.now())
	after := partners()
	if after.GetDigest() != before.GetDigest() || !slices.EqualFunc(after.GetCertificates(), before.GetCertificates(), bytes.Equal) {
		t.Errorf("%d certificates, then %d", len(before.GetCertificates()), len(after.GetCertificates()))
	}
}
