package policy

import (
	"fmt"
	"slices"
	"strings"
)

// mailPrograms are the names of the programs that agents know.
var mailPrograms = []string{"*", "thunderbird", "outlook", "apple-mail", "outlook-mac"}

// mail reads what the mail programs are to do. What is not said is the person's
// to decide: the certificate is chosen in all programs, and no switch is touched.
func (r *reader) mail(path string, y mailYAML) Mail {
	m := Mail{
		Programs:  []string{"*"},
		Sign:      r.word(path+".sign", y.Sign, MailUser, MailAlways, MailNever),
		Encrypt:   r.word(path+".encrypt", y.Encrypt, MailUser, MailAlways, MailNever),
		ClearSign: r.word(path+".clear_sign", y.ClearSign, MailUser, MailAlways, MailNever),
		Hash:      r.word(path+".hash", y.Hash, "", "sha-256", "sha-384", "sha-512"),
		Cipher:    r.word(path+".cipher", y.Cipher, "", "aes-128", "aes-192", "aes-256"),
	}
	if y.Programs != nil {
		m.Programs = *y.Programs
		r.words(path+".programs", m.Programs, mailPrograms)
		if slices.Contains(m.Programs, "*") && len(m.Programs) > 1 {
			r.problem(r.at(path+".programs"), `Write only "*", or only names.`, `The programs %s name some beside "*", which is all.`, strings.Join(m.Programs, ", "))
		}
	}
	if m.manages() && len(m.Programs) == 0 {
		r.problem(r.at(path), `Name programs, or remove "programs" for all.`, "The rule says what mail programs are to do, and names none.")
	}
	return m
}

// manages says that more is wanted than that the certificate is chosen.
func (m Mail) manages() bool {
	return m.Sign != MailUser || m.Encrypt != MailUser || m.ClearSign != MailUser || m.Hash != "" || m.Cipher != ""
}

func (m Mail) facts() []fact {
	return []fact{
		{"mail.programs", fmt.Sprint(m.Programs)}, {"mail.sign", m.Sign}, {"mail.encrypt", m.Encrypt}, {"mail.clear_sign", m.ClearSign},
		{"mail.hash", m.Hash}, {"mail.cipher", m.Cipher},
	}
}
