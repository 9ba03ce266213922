package status

import (
	"io"

	"smime-agent/agent/enroll"
	"smime-agent/agent/text"
)

// OldMail is what the doctor found of the keys that old mail needs.
type OldMail struct {
	Path  string `json:"path"`
	Files int    `json:"files"`
	// Messages are all, Encrypted those that are encrypted, Opened those of them
	// for which a key is here.
	Messages  int `json:"messages"`
	Encrypted int `json:"encrypted"`
	Opened    int `json:"opened"`
	// Unseen may open with a key whose store cannot be looked into; Obscure do not
	// say for whom they are encrypted; Closed are opened by no key here.
	Unseen  int `json:"unseen"`
	Obscure int `json:"obscure"`
	Closed  int `json:"closed"`
	// Unnamed are those of the closed ones whose keys are too many to be named.
	Unnamed int `json:"unnamed"`
	// ClosedFiles hold mail that only their own program reads; FailedFiles could
	// not be read.
	ClosedFiles int `json:"closed_files"`
	FailedFiles int `json:"failed_files"`
	// Keys are those that messages need; one message may need one of several.
	Keys []OldMailKey `json:"keys"`
	// Kept says that the service has taken the result for its status.
	Kept bool `json:"kept"`
}

// OldMailKey is a key that messages need, and where these are.
type OldMailKey struct {
	enroll.MailKey
	Mailbox string          `json:"mailbox,omitempty"`
	Folders []OldMailFolder `json:"folders"`
}

// OldMailFolder is a folder or file with messages.
type OldMailFolder struct {
	Path     string `json:"path"`
	Messages int    `json:"messages"`
}

// ExitCode is 0 if all can be opened, 2 if messages need a key of the agent that
// is gone, 1 if some could not be judged or need a key that the agent never had.
func (m OldMail) ExitCode() int {
	for _, k := range m.Keys {
		if k.Presence == enroll.KeyGone {
			return 2
		}
	}
	if m.Closed+m.Unseen+m.Obscure+m.ClosedFiles+m.FailedFiles > 0 {
		return 1
	}
	return 0
}

// Text writes it for people.
func (m OldMail) Text(w io.Writer, o Options) error {
	p := &page{w: w, t: text.For(o.Locale), o: o}
	p.line(p.wrap(p.t.Say("oldmail.summary", map[string]any{
		"Path": Printable(m.Path), "Messages": m.Messages, "Files": m.Files, "Encrypted": m.Encrypted, "Opened": m.Opened,
	}), 2))
	for _, k := range m.Keys {
		p.oldMailKey(k)
	}
	for _, rest := range []struct {
		name string
		n    int
	}{{"unnamed", m.Unnamed}, {"obscure", m.Obscure}, {"closed", m.ClosedFiles}, {"failed", m.FailedFiles}} {
		if rest.n > 0 {
			p.line(p.severity(Info) + "  " + p.t.Say("oldmail."+rest.name, map[string]any{"Count": rest.n}))
		}
	}
	if !m.Kept {
		p.line(p.severity(Info) + "  " + p.t.Say("oldmail.notkept", nil))
	}
	return p.fail
}

func (p *page) oldMailKey(k OldMailKey) {
	mark := OK
	switch k.Presence {
	case enroll.KeyGone:
		mark = Error
	case enroll.KeyUnseen:
		mark = Warning
	case enroll.KeyUnknown:
		mark = Info
	case enroll.KeyHere:
	}
	name := p.t.Say("oldmail.serial", map[string]any{"Serial": Printable(k.Serial), "Issuer": Printable(k.Issuer)})
	if k.Serial == "" {
		name = p.t.Say("oldmail.keyid", map[string]any{"KeyID": Printable(k.KeyID)})
	}
	if k.Mailbox != "" {
		name = Printable(k.Mailbox) + ", " + name
	}
	p.line(p.severity(mark) + "  " + p.t.Say("oldmail."+string(k.Presence), map[string]any{"Count": k.Messages}))
	p.line("      " + name)
	if k.Presence == enroll.KeyHere {
		return
	}
	for _, f := range k.Folders {
		p.line("      " + p.t.Say("oldmail.in", map[string]any{"Path": Printable(f.Path), "Count": f.Messages}))
	}
}
