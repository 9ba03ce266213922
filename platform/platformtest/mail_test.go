package platformtest_test

import (
	"testing"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// TestMemoryMailProgram holds the double to the suite that the real ones pass.
func TestMemoryMailProgram(t *testing.T) {
	platformtest.TestMailProgram(t, func(*testing.T) platformtest.MailWorld {
		p := &platformtest.MailProgram{Word: "memory", Title: "Memory Mail"}
		p.Add(platform.MailAccountInfo{ID: "a", Mailbox: "Mei.Lin@corp.example", Store: "mem", Fixed: []platform.MailSetting{platform.MailHash}}, platform.MailSettings{Sign: platform.Off})
		p.Add(platform.MailAccountInfo{ID: "b", Mailbox: "other@corp.example", Store: "mem"}, platform.MailSettings{})
		return platformtest.MailWorld{
			Program: p, Mailbox: "mei.lin@corp.example", Bytes: func() []byte { return p.Bytes() }, Running: p.Run,
			Foreign: func() []byte { return p.Bytes("b") },
			Managed: func(platform.MailSettings) { p.Manage("a", platform.MailSign) },
		}
	})
}
