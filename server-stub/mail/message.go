// Package mail writes the reference server's mails, in English and Chinese, and
// hands them to a mail server by SMTP.
package mail

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
	"time"
)

// Message is one mail to one person.
type Message struct {
	// To and From are bare addresses.
	To   string
	From string
	// FromName is shown beside From; may be empty.
	FromName string
	Subject  string
	// Text is plain text, lines ended by "\n".
	Text string
	// ID makes the Message-ID: the same mail sent again has the same, so that a mail
	// program shows it once.
	ID   string
	Date time.Time
	// Languages are the BCP 47 tags of the text, in its order.
	Languages []string
}

// ErrAddress: an address is none, or would break out of its header.
var ErrAddress = errors.New("not a mail address")

// Encode gives the message as it travels (RFC 5322, RFC 2045), with lines ended
// by CRLF. Errors are [ErrAddress].
func (m Message) Encode() ([]byte, error) {
	for _, address := range []string{m.To, m.From} {
		parsed, err := netmail.ParseAddress(address)
		if err != nil || parsed.Address != address || parsed.Name != "" {
			return nil, fmt.Errorf("%w: %q", ErrAddress, address)
		}
	}
	_, domain, _ := strings.Cut(m.From, "@")
	var out bytes.Buffer
	for _, header := range [][2]string{
		{"From", (&netmail.Address{Name: oneLine(m.FromName), Address: m.From}).String()},
		{"To", "<" + m.To + ">"},
		{"Subject", folded(mime.BEncoding.Encode("utf-8", oneLine(m.Subject)))},
		{"Date", m.Date.Format(time.RFC1123Z)},
		{"Message-ID", "<" + strings.Map(idRune, m.ID) + "@" + domain + ">"},
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
		{"Content-Language", strings.Join(m.Languages, ", ")},
		{"Auto-Submitted", "auto-generated"}, // RFC 3834: no out-of-office answers to it
	} {
		out.WriteString(header[0] + ": " + header[1] + "\r\n")
	}
	out.WriteString("\r\n")
	w := quotedprintable.NewWriter(&out)
	if _, err := w.Write([]byte(strings.ReplaceAll(m.Text, "\n", "\r\n"))); err != nil {
		return nil, fmt.Errorf("encode mail: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encode mail: %w", err)
	}
	return out.Bytes(), nil
}

// oneLine keeps text of others from starting a header of its own.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

// folded breaks between encoded words, whose lines may have 76 characters (RFC 2047, 2).
func folded(header string) string { return strings.ReplaceAll(header, "?= =?", "?=\r\n =?") }

func idRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
		return r
	}
	return '-'
}
