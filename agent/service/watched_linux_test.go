package service

import (
	"testing"

	"smime-agent/agent/status"
)

// TestChangedSettingsCountAtOnce: nobody asks, and the next look is ten minutes
// away.
func TestChangedSettingsCountAtOnce(t *testing.T) {
	b, ctx := prepareBench(t, "silent")
	b.write("config.yaml", b.places())
	b.start(ctx)
	b.await("word of missing settings", shows(status.Unconfigured, "server, server_ca or server_pin"))
	b.write("config.yaml", b.places()+b.way())
	b.await("word of a missing file", shows(status.Unconfigured, "ca.pem"))
	b.write("ca.pem", string(b.server.CAPEM))
	b.await("word of a missing token", shows(status.NotJoined, "token"))
	b.writeToken()
	b.await("an active credential", func(r status.Report) bool { return len(r.Credentials) == 1 && r.Credentials[0].Proof.OK() })
}
