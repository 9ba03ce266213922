package stub_test

import (
	"testing"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/server"
	"smime-agent/server-stub/stub"
)

// twoCAs gives who is in Sales certificates of another CA, and everybody else those of the server's own.
const twoCAs = `organization: {name: Example GmbH, country: DE, identifier: NTRDE-DER3306.HRB12345}
approval: auto
rules:
  - {departments: [Sales], profiles: [employee-dual]}
  - {departments: ["*"], profiles: [employee-sign, employee-encrypt]}
profiles:
  employee-dual: {ca: est}
`

// TestRevokeAmongTwoCAs revokes many at once: what the server's own CA issued is
// revoked, although what another CA issued, which comes first, is in the same list.
func TestRevokeAmongTwoCAs(t *testing.T) {
	for name, revoke := range map[string]func(*stub.Server, *device) ([]*controlv1.LedgerEntry, bool, error){
		"leavers": func(s *stub.Server, _ *device) ([]*controlv1.LedgerEntry, bool, error) {
			apply(t, s, twoCAs, heading+"carl,carl@example.com,Carl,Example,,Lab\n", false)
			resp, err := s.Admin.ListLeavers(t.Context(), &controlv1.ListLeaversRequest{RevokeReason: "affiliationChanged", Expected: 2})
			var entries []*controlv1.LedgerEntry
			for _, l := range resp.GetLeavers() {
				entries = append(entries, l.GetEntry())
			}
			return entries, resp.GetRevoked(), err
		},
		"device": func(s *stub.Server, d *device) ([]*controlv1.LedgerEntry, bool, error) {
			resp, err := s.Admin.DecideDevice(t.Context(), &controlv1.DecideDeviceRequest{Id: d.id, RevokeReason: "keyCompromise"})
			return resp.GetCertificates(), resp.GetRevoked(), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOtherCA(t)
			s := start(t, stub.Options{
				PolicyYAML: twoCAs, PeopleCSV: heading + "alice,alice@example.com,Alice,Example,,Sales\nbob,bob@example.com,Bob,Example,,Lab\n",
				Externals: map[string]server.External{"est": {Authority: o, Anchors: [][]byte{o.root.Raw}}},
			})
			d := admittedDevice(t, s, alice(), &controlv1.UserPresence{User: "uid:1001", Account: "bob"})
			if got := settledBy(t, s, d, submission(enrollmentID(1), csr(t, p256(t))), "auto"); got.GetIssued() == nil {
				t.Fatalf("outcome %v, want the other CA's certificate", got)
			}
			own := submissionFor(2, "uid:1001", "bob@example.com", csr(t, p256(t)))
			own.Profile = "employee-sign"
			d.enroll(t, own)
			entries, all, err := revoke(s, d)
			if err != nil || all || len(entries) != 2 {
				t.Fatalf("revoked: %v of %v, %v; want two certificates and not all revoked", all, entries, err)
			}
			wantAuthority(t, entries)
			for _, e := range ledger(t, s) {
				want := map[string]string{"alice@example.com": "valid", "bob@example.com": "revoked"}[e.GetMailbox()]
				if e.GetStatus() != want {
					t.Errorf("%s is %s, want %s", e.GetMailbox(), e.GetStatus(), want)
				}
			}
		})
	}
}

// wantAuthority: who has to revoke is told with each certificate.
func wantAuthority(t *testing.T, entries []*controlv1.LedgerEntry) {
	t.Helper()
	for _, e := range entries {
		if want := map[string]string{"alice@example.com": "est"}[e.GetMailbox()]; e.GetAuthority() != want {
			t.Errorf("%s is of the CA %q, want %q", e.GetMailbox(), e.GetAuthority(), want)
		}
	}
}
