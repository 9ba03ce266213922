package text

import "strings"

// Question is what the consent prompt must say. Reason is an enroll.Reason's word.
type Question struct {
	Organization, Contact string
	Mailbox               string
	Reason                string
	// Note is the organization's own sentence, by BCP 47 tag.
	Note              map[string]string
	PostponementsLeft int
	// ProgramsAsk says that afterwards the system asks for each mail program.
	ProgramsAsk bool
}

// Dialog is a prompt in one language. Later is empty when the answer cannot be
// put off any more.
type Dialog struct {
	Title, Body    string
	Yes, Later, No string
}

// Prompt says who asks, for which mailbox, what will happen and where to ask.
func (t *Text) Prompt(q Question) Dialog {
	data := t.who(q.Organization, q.Contact, q.Mailbox)
	parts := []string{
		t.Say("prompt.intro."+introOf(q.Reason), data),
		t.Say("prompt.mailbox", data),
		t.Say("prompt.what", data),
	}
	if q.ProgramsAsk {
		parts = append(parts, t.Say("prompt.programs", data))
	}
	if note := strings.TrimSpace(t.pick(q.Note)); note != "" {
		parts = append(parts, note)
	}
	d := Dialog{
		Title: t.Say("prompt.title", data),
		Yes:   t.Say("prompt.yes", nil),
		No:    t.Say("prompt.no", nil),
	}
	if q.PostponementsLeft > 0 {
		d.Later = t.Say("prompt.later", nil)
		parts = append(parts, t.Count("prompt.left", q.PostponementsLeft))
	} else {
		parts = append(parts, t.Say("prompt.last", nil))
	}
	d.Body = strings.Join(append(parts, t.Say("prompt.ask", data)), "\n\n")
	return d
}

// introOf names the opening sentence for a reason.
func introOf(reason string) string {
	switch reason {
	case "renewal-due", "profile-changed", "asked-by-person", "asked-by-administrator":
		return "renewal"
	case "removed", "revoked":
		return reason
	default:
		return "first"
	}
}

// Notice is what a notice tells. Code is an enroll.NoticeCode's word.
type Notice struct {
	Code                  string
	Organization, Contact string
	Mailbox               string
	// ProgramsAsk is as in [Question]; only notices of what went well say it.
	ProgramsAsk bool
}

// Message needs no answer.
type Message struct {
	Title, Body string
}

// Notice puts a notice into words.
func (t *Text) Notice(n Notice) Message {
	data := t.who(n.Organization, n.Contact, n.Mailbox)
	m := Message{
		Title: t.Say("notice."+n.Code+".title", data),
		Body:  t.Say("notice."+n.Code+".body", data),
	}
	if n.ProgramsAsk && (n.Code == "enrolling" || n.Code == "enrolled" || n.Code == "renewed") {
		m.Body += " " + t.Say("prompt.programs", data)
	}
	return m
}

// Entry asks for one secret line.
type Entry struct {
	Title, Body string
	OK, Cancel  string
}

// Secret asks for the PIN (PKCS #11) or the password of a store, named as
// platform names it; retry says that the last answer was wrong.
func (t *Text) Secret(store string, retry bool) Entry {
	kind := "password"
	if strings.HasPrefix(store, "pkcs11:") {
		kind = "pin"
	}
	body := t.Say("secret."+kind+".body", map[string]any{"Store": t.StoreName(store)})
	if retry {
		body = t.Say("secret."+kind+".wrong", nil) + "\n\n" + body
	}
	return Entry{
		Title:  t.Say("secret."+kind+".title", nil),
		Body:   body,
		OK:     t.Say("secret.ok", nil),
		Cancel: t.Say("secret.cancel", nil),
	}
}

// CodeQuestion is what the dialog for a mailed code must say.
type CodeQuestion struct {
	Organization, Contact string
	Mailbox               string
	// Wrong says that the last code was not the right one.
	Wrong bool
}

// Code asks for the code that was mailed to a mailbox.
func (t *Text) Code(q CodeQuestion) Entry {
	data := t.who(q.Organization, q.Contact, q.Mailbox)
	body := t.Say("code.body", data)
	if q.Wrong {
		body = t.Say("code.wrong", data) + "\n\n" + body
	}
	return Entry{Title: t.Say("code.title", data), Body: body, OK: t.Say("code.ok", nil), Cancel: t.Say("code.later", nil)}
}

// StoreName is a store's name as people know it.
func (t *Text) StoreName(store string) string {
	kind, rest, _ := strings.Cut(store, ":")
	switch {
	case kind == "nss" && strings.HasPrefix(rest, "tb-"):
		return t.Say("store.thunderbird", map[string]any{"Profile": strings.TrimPrefix(rest, "tb-")})
	case kind == "nss" && rest == "default":
		return t.Say("store.nss", nil)
	case kind == "pkcs11":
		return t.Say("store.token", map[string]any{"Label": rest})
	case store == "windows" || store == "keychain" || store == "file":
		return t.Say("store."+store, nil)
	default:
		return store
	}
}

// who fills in what is not known, so that no sentence has a hole.
func (t *Text) who(organization, contact, mailbox string) map[string]any {
	if organization == "" {
		organization = t.Say("who.organization", nil)
	}
	if contact == "" {
		contact = t.Say("who.contact", nil)
	}
	return map[string]any{"Organization": organization, "Contact": contact, "Mailbox": mailbox}
}
