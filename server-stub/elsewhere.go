package main

import (
	"fmt"

	controlv1 "smime-agent/proto/control/v1"
)

// byCA tells what this server's own CA issued from what another did.
func byCA(entries []*controlv1.LedgerEntry) (own, elsewhere []*controlv1.LedgerEntry) {
	for _, e := range entries {
		if e.GetAuthority() == "" {
			own = append(own, e)
		} else {
			elsewhere = append(elsewhere, e)
		}
	}
	return own, elsewhere
}

// tellElsewhere names what only another CA can revoke; nothing if there is none.
func (a *app) tellElsewhere(entries []*controlv1.LedgerEntry) error {
	if len(entries) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(a.out, "\nAnother CA issued these, and only there can they be revoked:"); err != nil {
		return err
	}
	rows := [][]string{{"MAILBOX", "NAME", "ENDS", "CA", "SERIAL"}}
	for _, e := range entries {
		rows = append(rows, []string{dash(e.GetMailbox()), dash(e.GetName()), day(e.GetNotAfter()), caText(e), e.GetSerial()})
	}
	return table(a.out, rows)
}

// caText is the CA as its certificates and as policy.yaml name it.
func caText(e *controlv1.LedgerEntry) string {
	return fmt.Sprintf("%s (%s)", dash(e.GetCa()), e.GetAuthority())
}

// notRevoked is the error of who wanted certificates revoked that only another CA
// can revoke; nil if there is none.
func notRevoked(elsewhere []*controlv1.LedgerEntry) error {
	if len(elsewhere) == 0 {
		return nil
	}
	return cure(fmt.Errorf("not revoked: %d of these certificates, which another CA issued", len(elsewhere)),
		"Revoke them at that CA, by the serial numbers that the list has. What this server's own CA issued is revoked.")
}
