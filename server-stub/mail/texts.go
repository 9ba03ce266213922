package mail

import (
	"fmt"
	"strings"
	"text/template"
	"time"
)

// Sender is what all mails of a server have in common.
type Sender struct {
	// From is the address of the sender, Organization is shown beside it.
	From         string
	Organization string
	// Contact is whom people may ask; may be empty.
	Contact string
}

// Certificate is what mails say of one.
type Certificate struct {
	Name    string
	Mailbox string
	Serial  string
	Type    string
	Ends    time.Time
	Days    int
	Host    string
	// Account is the login on Host, where known.
	Account     string
	LastContact time.Time
	// Problem is what keeps the device from renewing, where it said so.
	Problem string
}

// Date is the day of the end, as both languages can read it.
func (c Certificate) Date() string { return c.Ends.UTC().Format(time.DateOnly) }

// Contacted is the day of the device's last contact, or "-".
func (c Certificate) Contacted() string {
	if c.LastContact.IsZero() {
		return "-"
	}
	return c.LastContact.UTC().Format(time.DateOnly)
}

// maxShown bounds what a mail repeats of a device's own words.
const maxShown = 64

// Shown makes words of a device fit to be repeated: on one line, and bounded.
func Shown(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > maxShown {
		return string(runes[:maxShown]) + "…"
	}
	return text
}

// text is one mail in both languages.
type text struct {
	subjectEN, subjectZH string
	bodyEN, bodyZH       string
}

const rule = "\n----------------------------------------\n\n"

// write fills a text in; the reader's language comes first.
func (t text) write(s Sender, to, locale, id string, now time.Time, data any) (Message, error) {
	en, err := fill(t.bodyEN, data)
	if err != nil {
		return Message{}, err
	}
	zh, err := fill(t.bodyZH, data)
	if err != nil {
		return Message{}, err
	}
	subjectEN, err := fill(t.subjectEN, data)
	if err != nil {
		return Message{}, err
	}
	subjectZH, err := fill(t.subjectZH, data)
	if err != nil {
		return Message{}, err
	}
	m := Message{To: to, From: s.From, FromName: s.Organization, ID: id, Date: now}
	if strings.HasPrefix(strings.ToLower(locale), "zh") {
		m.Subject, m.Text, m.Languages = subjectZH+" / "+subjectEN, zh+rule+en, []string{"zh", "en"}
	} else {
		m.Subject, m.Text, m.Languages = subjectEN+" / "+subjectZH, en+rule+zh, []string{"en", "zh"}
	}
	return m, nil
}

func fill(source string, data any) (string, error) {
	t, err := template.New("mail").Parse(source)
	if err != nil {
		return "", fmt.Errorf("write mail: %w", err)
	}
	var out strings.Builder
	if err := t.Execute(&out, data); err != nil {
		return "", fmt.Errorf("write mail: %w", err)
	}
	return out.String(), nil
}

// Reminder tells the owner that a certificate ends and was not renewed by itself.
func Reminder(s Sender, c Certificate, locale string, now time.Time) (Message, error) {
	t := text{
		subjectEN: "Your e-mail certificate ends in {{.C.Days}} days",
		subjectZH: "您的电子邮件证书将在 {{.C.Days}} 天后到期",
		bodyEN: `Hello{{if .C.Name}} {{.C.Name}}{{end}},

the certificate for {{.C.Mailbox}} ends on {{.C.Date}}, in {{.C.Days}} days.
It should have been renewed by itself, and was not yet.

What to do: log in on {{if .C.Host}}the computer {{.C.Host}}{{else}}the computer where you use it{{end}}, stay connected to
the network for some minutes, and agree if you are asked. Old mail stays readable.

Certificate: {{.C.Serial}}
{{if .S.Contact}}Questions: {{.S.Contact}}
{{end}}`,
		bodyZH: `{{if .C.Name}}{{.C.Name}}，{{end}}您好：

{{.C.Mailbox}} 的证书将于 {{.C.Date}} 到期，还有 {{.C.Days}} 天。
它本应自动续期，但目前尚未完成。

请这样做：登录{{if .C.Host}}计算机 {{.C.Host}}{{else}}您使用该证书的计算机{{end}}，保持联网几分钟；如有提示，请选择同意。
原有邮件仍可阅读。

证书：{{.C.Serial}}
{{if .S.Contact}}如有疑问，请联系：{{.S.Contact}}
{{end}}`,
	}
	return t.write(s, c.Mailbox, locale, fmt.Sprintf("reminder.%s.%d", c.Serial, c.Days), now, map[string]any{"S": s, "C": c})
}

// Code brings the code that confirms a mailbox. It must go to that mailbox alone.
func Code(s Sender, mailbox, code, host, locale, id string, ends, now time.Time) (Message, error) {
	t := text{
		subjectEN: "Code for your e-mail certificate",
		subjectZH: "您的电子邮件证书验证码",
		bodyEN: `Hello,

a certificate for {{.Mailbox}} was asked for{{if .Host}} on the computer {{.Host}}{{end}}. This code confirms that the
mailbox is yours:

    {{.Code}}

Enter it in the window that asks for it, or in a terminal:

    smime-agent enroll --code {{.Code}}

It holds until {{.Ends}} UTC and works once. Nobody will ever ask you for it. If you did not ask for a
certificate, do nothing{{if .S.Contact}} and tell {{.S.Contact}}{{end}}.
`,
		bodyZH: `您好：

{{if .Host}}计算机 {{.Host}} 上{{end}}有人为 {{.Mailbox}} 申请了证书。以下验证码用于确认该邮箱属于您：

    {{.Code}}

请在提示窗口中输入，或在终端中运行：

    smime-agent enroll --code {{.Code}}

有效期至 {{.Ends}} UTC，仅可使用一次。任何人都不会向您索取此验证码。如果您没有申请证书，
请勿操作{{if .S.Contact}}，并告知 {{.S.Contact}}{{end}}。
`,
	}
	data := map[string]any{"S": s, "Mailbox": mailbox, "Code": code, "Host": host, "Ends": ends.UTC().Format("2006-01-02 15:04")}
	return t.write(s, mailbox, locale, id, now, data)
}

// maxDigest bounds the lines of a digest.
const maxDigest = 500

// Digest tells an administrator of certificates that end and were not renewed by
// themselves. id tells one digest from another.
func Digest(s Sender, to, id string, certificates []Certificate, now time.Time) (Message, error) {
	more := max(len(certificates)-maxDigest, 0)
	t := text{
		subjectEN: "{{.N}} certificates end and were not renewed",
		subjectZH: "{{.N}} 个证书即将到期且未续期",
		bodyEN: `These certificates end, and their devices have not renewed them yet:
{{range .List}}
- {{.Mailbox}}{{if .Name}} ({{.Name}}){{end}}: ends {{.Date}}, in {{.Days}} days
  computer {{or .Host "-"}}, account {{or .Account "-"}}, last contact {{.Contacted}}{{if .Problem}}
  problem: {{.Problem}}{{end}}
  certificate {{.Serial}}
{{end}}{{if .More}}
… and {{.More}} more: server-stub ledger --expiring 60d
{{end}}
Their owners were told, each once for each stage of 60, 30 and 7 days.
`,
		bodyZH: `以下证书即将到期，相应设备尚未自动续期：
{{range .List}}
- {{.Mailbox}}{{if .Name}}（{{.Name}}）{{end}}：{{.Date}} 到期，还有 {{.Days}} 天
  计算机 {{or .Host "-"}}，账户 {{or .Account "-"}}，最近联系 {{.Contacted}}{{if .Problem}}
  问题：{{.Problem}}{{end}}
  证书 {{.Serial}}
{{end}}{{if .More}}
……另有 {{.More}} 个：server-stub ledger --expiring 60d
{{end}}
已在 60、30、7 天各阶段分别通知其持有人一次。
`,
	}
	return t.write(s, to, "en", id, now, map[string]any{"N": len(certificates), "List": certificates[:len(certificates)-more], "More": more})
}
