package service

import (
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform/platformtest"
)

// shows says that of the conditions that are more than a note exactly one is
// there, with a detail that names what it must.
func shows(code enroll.Code, detail string) func(status.Report) bool {
	return func(r status.Report) bool {
		bad := slices.DeleteFunc(slices.Clone(r.Conditions), func(c status.Condition) bool { return c.Severity == status.Info })
		return len(bad) == 1 && bad[0].Code == code && strings.Contains(bad[0].Detail, detail)
	}
}

// TestAFreshMachineIsLedToItsCertificate: at each turn one condition says what
// is missing; what is added counts without a restart, and what was wrong is
// forgotten.
func TestAFreshMachineIsLedToItsCertificate(t *testing.T) {
	b, ctx := prepareBench(t, "silent")
	b.write("config.yaml", b.places())
	b.start(ctx)
	b.await("word of missing settings", shows(status.Unconfigured, "server, server_ca or server_pin"))

	turn := func(what string, code enroll.Code, detail string) {
		t.Helper()
		if err := b.client.Sync(ctx); err == nil {
			t.Error("asked central management all the same")
		}
		b.await(what, shows(code, detail))
	}
	b.write("config.yaml", b.places()+"server: https://central.example\nserver_ca: /there\n")
	turn("word of a wrong setting", status.Unconfigured, "is a URL")
	b.write("config.yaml", b.places()+b.way())
	turn("word of a missing file", status.Unconfigured, "ca.pem")
	b.write("ca.pem", "no certificate")
	turn("word of a file that is not PEM", status.Unconfigured, "not PEM")
	stranger := platformtest.NewAuthority(t)
	b.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.Root.Raw})))
	turn("word of a missing token", status.NotJoined, "token")
	b.write("token", "join-OTHEROTHEROTHEROTHEROTHER")
	turn("word of a server that is not believed", status.ControlUntrusted, "Transport CA")
	b.write("ca.pem", string(b.server.CAPEM))
	turn("word of a wrong token", status.TokenRefused, "does not know")
	b.writeToken()
	if err := b.client.Sync(ctx); err != nil {
		t.Error(err)
	}
	r := b.await("an active credential", inState(enroll.Active))
	if r.ExitCode() != 0 {
		t.Errorf("conditions are left: %+v", r.Conditions)
	}
}

func TestADetailIsWhatTheConditionDoesNotSay(t *testing.T) {
	for _, c := range []struct {
		code       enroll.Code
		hint, want string
	}{
		{status.TokenRefused, "The join token's life is over. Give this machine a new join token.", "The join token's life is over."},
		{status.ControlUntrusted, `h shows a certificate issued by "O=Acme Inc. Ltd". Correct the pin.`, `h shows a certificate issued by "O=Acme Inc. Ltd".`},
		{status.DevicePending, "This machine waits. Approve it.", ""},
		{status.Unconfigured, "Not set yet: server. The file is x.", "Not set yet: server. The file is x."},
		{enroll.CodeRecordFailed, "One sentence.", "One sentence."},
	} {
		if got := more(c.code, c.hint); got != c.want {
			t.Errorf("%s: %q", c.code, got)
		}
	}
}
