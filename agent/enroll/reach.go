package enroll

import (
	"crypto/x509"
	"time"
)

// SerialOf is the serial number of an enrollment's certificate in lower-case
// hex, as the contract, the ledger and the audit trail write it; empty if there
// is no certificate.
func SerialOf(e Enrollment) string {
	if len(e.Chain) == 0 {
		return ""
	}
	leaf, err := x509.ParseCertificate(e.Chain[0])
	if err != nil {
		return ""
	}
	return leaf.SerialNumber.Text(16)
}

// Reachable says that central management answered: whoever waits for nothing
// else need not wait for his backoff.
func (g *Engine) Reachable() {
	g.mu.Lock()
	defer g.unlock()
	if g.gate.failures == 0 {
		return
	}
	g.gate.failures, g.gate.until = 0, time.Time{}
	for _, n := range g.order {
		if p := n.e.Problem; p != nil && n.e.inProgress() && p.Code == CodeControlUnreachable {
			n.woken = true
		}
	}
}
