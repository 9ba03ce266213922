package enroll

import "time"

// SerialOf is the serial number of an enrollment's certificate in lower-case
// hex, as the contract, the ledger and the audit trail write it; empty if there
// is no certificate.
func SerialOf(e Enrollment) string {
	leaf := leafOf(e)
	if leaf == nil {
		return ""
	}
	return serialOf(leaf)
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
