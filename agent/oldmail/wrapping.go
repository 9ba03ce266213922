package oldmail

import (
	"bytes"
	"io"
	"mime/quotedprintable"
)

// pieceMost bounds how much of a line without an end is kept, in octets.
const pieceMost = 64 << 10

// wrapping is a message within a message that has a transfer encoding, which RFC
// 2046 §5.2.1 forbids and gateways do all the same. It is decoded as it comes.
type wrapping struct {
	inner    *message
	encoding string
	// letters are those of base64 that give no three octets yet; ended says that
	// its padding was seen.
	letters []byte
	ended   bool
	// line is what was decoded of a line, of which something went on before if
	// not begins.
	line   []byte
	begins bool
}

func newWrapping(encoding string, depth int) *wrapping {
	return &wrapping{inner: &message{depth: depth}, encoding: encoding, begins: true}
}

// encoded says that a transfer encoding changes octets.
func encoded(encoding string) bool { return encoding == "base64" || encoding == "quoted-printable" }

func (w *wrapping) add(line []byte) {
	if w.encoding == "base64" {
		w.feed(w.base64(line))
		return
	}
	plain, _ := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(line))) // as far as it can be undone
	w.feed(plain)
}

// base64 decodes what is complete, and leaves out what is not of the alphabet.
func (w *wrapping) base64(line []byte) []byte {
	for _, b := range line {
		if w.ended = w.ended || b == '='; w.ended {
			break
		}
		if b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '+' || b == '/' {
			w.letters = append(w.letters, b)
		}
	}
	whole := len(w.letters) / 4 * 4
	if w.ended {
		whole = len(w.letters)
	}
	plain := decodeLetters(w.letters[:whole])
	w.letters = append(w.letters[:0], w.letters[whole:]...)
	return plain
}

// feed gives the inner message whole lines, and of very long ones pieces.
func (w *wrapping) feed(plain []byte) {
	w.line = append(w.line, plain...)
	for {
		end := bytes.IndexByte(w.line, '\n') + 1
		if end == 0 && len(w.line) < pieceMost {
			return
		}
		piece := w.line
		if end > 0 {
			piece = w.line[:end]
		}
		w.inner.line(piece, w.begins)
		w.begins = end > 0
		w.line = append(w.line[:0], w.line[len(piece):]...)
		if len(w.line) == 0 {
			return
		}
	}
}

// end gives what the inner message has shown. Nothing may come after it.
func (w *wrapping) end() found {
	w.feed(decodeLetters(w.letters))
	if len(w.line) > 0 {
		w.inner.line(w.line, w.begins)
	}
	return w.inner.end()
}
