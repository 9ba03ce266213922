package oldmail

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"

	"smime-agent/agent/smime"
)

// found is what one message shows.
type found struct {
	encrypted  bool
	recipients []smime.Recipient
	// deleted: a mail program has marked it so and will take it away.
	deleted bool
}

// message is one message on its way through, line by line. It keeps the header
// of the part that it is in, and of an encrypted part the beginning; all else
// goes by unread.
type message struct {
	found found
	// around are the multiparts around the place where we are, outermost first.
	around []multipart
	where  where
	header header
	depth  int // of messages within messages
	cms    collector
	within *wrapping
}

// multipart is one whose parts are gone through; depth is that of the message
// that it belongs to.
type multipart struct {
	boundary string
	depth    int
}

// where in a message the next line is.
type where int

const (
	inHeader where = iota
	inCMS
	inWrapped
	inOther
)

// maxNested bounds multiparts and messages within each other; mail has some five.
const maxNested = 50

// line takes the next line, with its end, or a piece of one that is very long.
// begins says that it is the first piece.
func (m *message) line(line []byte, begins bool) {
	if begins && len(m.around) > 0 && m.atBoundary(line) {
		return
	}
	switch m.where {
	case inHeader:
		m.inHeader(line, begins)
	case inCMS:
		m.cms.add(line)
		if m.cms.done {
			m.endPart()
		}
	case inWrapped:
		m.within.add(line)
	case inOther:
	}
}

// end gives what the message has shown. Nothing may come after it.
func (m *message) end() found {
	if m.where == inHeader {
		m.endHeader()
	}
	m.endPart()
	return m.found
}

// atBoundary looks whether a line ends a part (RFC 2046 §5.1.1). A boundary
// further out ends all within, as it does where a message was cut short.
func (m *message) atBoundary(line []byte) bool {
	text, ok := bytes.CutPrefix(line, []byte("--"))
	if !ok {
		return false
	}
	text = bytes.TrimRight(text, " \t\r\n")
	for i, outer := range slices.Backward(m.around) {
		rest, ok := bytes.CutPrefix(text, []byte(outer.boundary))
		if !ok || len(rest) > 0 && string(rest) != "--" {
			continue
		}
		m.endPart()
		m.depth = outer.depth
		m.around, m.where, m.header = m.around[:i+1], inHeader, header{}
		if len(rest) > 0 {
			m.around, m.where = m.around[:i], inOther
		}
		return true
	}
	return false
}

func (m *message) inHeader(line []byte, begins bool) {
	if begins && len(bytes.TrimRight(line, "\r\n")) == 0 {
		m.endHeader()
		return
	}
	m.header.add(line, begins)
}

// endHeader decides what the part is.
func (m *message) endHeader() {
	h := m.header
	m.header = header{}
	m.where = inOther
	if m.depth == 0 && len(m.around) == 0 {
		m.found.deleted = expunged(h.fields["x-mozilla-status"])
	}
	kind, params := contentType(h.fields["content-type"])
	nested := len(m.around) + m.depth
	encoding := strings.ToLower(strings.TrimSpace(h.fields["content-transfer-encoding"]))
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		if b := params["boundary"]; b != "" && nested < maxNested {
			m.around = append(m.around, multipart{b, m.depth})
		}
	case kind == "message/rfc822" || kind == "message/global":
		switch {
		case nested >= maxNested:
		case encoded(encoding):
			m.where, m.within = inWrapped, newWrapping(encoding, nested+1)
		default:
			m.depth++
			m.where = inHeader
		}
	case isCMS(kind, params, h.fields["content-disposition"]):
		m.where, m.cms = inCMS, collector{encoding: encoding}
	}
}

// endPart closes what was open.
func (m *message) endPart() {
	if m.where == inCMS {
		m.cms.end()
		if m.cms.encrypted {
			m.found.encrypted = true
			m.found.recipients = append(m.found.recipients, m.cms.recipients...)
		}
		m.cms = collector{}
	}
	if m.where == inWrapped {
		f := m.within.end()
		m.found.encrypted = m.found.encrypted || f.encrypted
		m.found.recipients = append(m.found.recipients, f.recipients...)
		m.within = nil
	}
	m.where = inOther
}

// expunged reads Thunderbird's flags of a message (nsMsgMessageFlags.h):
// Expunged is 0x0008.
func expunged(field string) bool {
	flags, err := strconv.ParseUint(strings.TrimSpace(field), 16, 32)
	return err == nil && flags&0x0008 != 0
}

// isCMS says that a part may be an encrypted message (RFC 8551 §3.2): by its
// type, or by the file name that such messages have.
func isCMS(kind string, params map[string]string, disposition string) bool {
	switch kind {
	case "application/pkcs7-mime", "application/x-pkcs7-mime":
		switch strings.ToLower(params["smime-type"]) {
		case "signed-data", "certs-only", "compressed-data":
			return false
		}
		return true
	case "application/octet-stream", "application/pkcs7", "application/x-pkcs7":
		_, named := contentType(disposition)
		return isP7M(params["name"]) || isP7M(named["filename"])
	}
	return false
}

func isP7M(name string) bool {
	return strings.HasSuffix(strings.ToLower(strings.TrimSpace(name)), ".p7m")
}

// judged says what the beginning of a part is: encrypted or not, or, if neither
// is said, that more of it is needed.
func judged(beginning []byte) (recipients []smime.Recipient, encrypted, more bool) {
	recipients, err := smime.RecipientsAt(beginning)
	switch {
	case err == nil:
		return recipients, true, false
	case errors.Is(err, smime.ErrCutOff):
		return nil, false, true
	case errors.Is(err, smime.ErrMalformed):
		return nil, true, false // it calls itself encrypted, and nobody can say for whom
	default:
		return nil, false, false
	}
}
