package audit

import (
	controlv1 "smime-agent/proto/control/v1"
)

// What a device has proved of a credential, in one word.
const (
	good = "good"
	// signsOnly is good, and does not decrypt: nothing is published by it.
	signsOnly = "signs-only"
	failed    = "failed"
	// unproved was not tried yet.
	unproved = "none"
	// gone is what the device does not report any more.
	gone = "gone"
)

// Credentials compares two reports of a device, and gives a line's facts for each
// credential of which the newer says otherwise whether it works or how its key is
// kept. One that is new and not proved changes nothing yet.
func Credentials(before, after *controlv1.SyncRequest) (lines [][]any) {
	old := make(map[string]*controlv1.CredentialReport, len(before.GetCredentials()))
	for _, c := range before.GetCredentials() {
		old[c.GetEnrollmentId()] = c
	}
	for _, c := range after.GetCredentials() {
		was := old[c.GetEnrollmentId()]
		delete(old, c.GetEnrollmentId())
		moved := was.GetProtection() != "" && was.GetProtection() != c.GetProtection()
		if proof := proved(c); proof != proved(was) || moved {
			lines = append(lines, credential(c, proof, proved(was), was.GetProtection()))
		}
	}
	for _, c := range before.GetCredentials() {
		if old[c.GetEnrollmentId()] == c && proved(c) != unproved {
			lines = append(lines, credential(c, gone, proved(c), c.GetProtection()))
		}
	}
	return lines
}

func proved(c *controlv1.CredentialReport) string {
	p := c.GetProof()
	switch {
	case p == nil:
		return unproved
	case !p.GetOk():
		return failed
	case !p.GetDecrypts():
		return signsOnly
	default:
		return good
	}
}

func credential(c *controlv1.CredentialReport, proof, proofBefore, protectionBefore string) []any {
	return []any{
		"enrollment", bounded(c.GetEnrollmentId()), "user", bounded(c.GetUser()), "mailbox", bounded(c.GetMailbox()),
		"serial", bounded(c.GetSerial()), "proof", proof, "proof_before", proofBefore,
		"protection", bounded(c.GetProtection()), "protection_before", bounded(protectionBefore),
	}
}
