package oldmail

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime/quotedprintable"

	"smime-agent/agent/smime"
)

// The beginning of an encrypted part is looked at when there is so much of it,
// and again at each time four times as much, up to the limit: some thousand
// recipients. All in octets as they stand in the file.
const (
	firstLook   = 4 << 10
	collectMost = 16 << 20
)

// collector keeps the beginning of an encrypted part until its recipients are
// known.
type collector struct {
	encoding string
	raw      []byte
	look     int
	// done: no more is needed.
	done       bool
	encrypted  bool
	recipients []smime.Recipient
}

func (c *collector) add(line []byte) {
	if c.done {
		return
	}
	if c.look == 0 {
		c.look = firstLook
	}
	c.raw = append(c.raw, line[:min(len(line), collectMost-len(c.raw))]...)
	if len(c.raw) < c.look {
		return
	}
	c.look = min(4*c.look, collectMost)
	var more bool
	c.recipients, c.encrypted, more = judged(c.decoded())
	if c.done = !more || len(c.raw) >= collectMost; c.done {
		c.encrypted = c.encrypted || more
		c.raw = nil
	}
}

// end looks at what there is. A part that was cut off before its recipients is
// encrypted all the same, and nobody can say for whom.
func (c *collector) end() {
	if c.done {
		return
	}
	var more bool
	decoded := c.decoded()
	c.recipients, c.encrypted, more = judged(decoded)
	c.encrypted = c.encrypted || more && len(decoded) > 0
	c.done, c.raw = true, nil
}

// decoded undoes the transfer encoding as far as it can be undone. Where none is
// named, DER in base64 is known by its first letter: 0x30 0x8x is "MI".
func (c *collector) decoded() []byte {
	switch {
	case c.encoding == "base64":
		return fromBase64(c.raw)
	case c.encoding == "quoted-printable":
		plain, _ := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(c.raw)))
		return plain
	case bytes.HasPrefix(bytes.TrimLeft(c.raw, " \t\r\n"), []byte("MI")):
		return fromBase64(c.raw)
	default:
		return c.raw
	}
}

// fromBase64 leaves out what is not of the alphabet (RFC 2045 §6.8), and takes
// the last letters as far as they give octets.
func fromBase64(raw []byte) []byte {
	letters := make([]byte, 0, len(raw))
	for _, b := range raw {
		switch {
		case b == '=':
			return decodeLetters(letters)
		case b >= 'A' && b <= 'Z', b >= 'a' && b <= 'z', b >= '0' && b <= '9', b == '+', b == '/':
			letters = append(letters, b)
		}
	}
	return decodeLetters(letters)
}

func decodeLetters(letters []byte) []byte {
	if len(letters)%4 == 1 {
		letters = letters[:len(letters)-1]
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(letters)))
	n, _ := base64.RawStdEncoding.Decode(out, letters)
	return out[:n]
}
