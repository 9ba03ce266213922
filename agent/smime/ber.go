package smime

import (
	"fmt"
	"math"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// maxDepth is more than CMS with certificates needs (about 12).
const maxDepth = 32

// constructedOctets is an OCTET STRING in pieces, which only BER allows.
const constructedOctets = asn1.OCTET_STRING | 0x20

// normalize turns BER as mail programs stream it (indefinite lengths, OCTET
// STRINGs in pieces, lengths longer than need be; X.690 §8) into one element
// with definite, shortest lengths. It does not sort sets and does not look into
// primitive values. What it allocates is linear in the input.
func normalize(ber []byte) ([]byte, error) {
	if len(ber) > maxMessage {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrMalformed, maxMessage)
	}
	if isDefinite(ber) {
		return ber, nil
	}
	out, rest, err := appendDefinite(make([]byte, 0, len(ber)), ber, 0)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: bytes after the end", ErrMalformed)
	}
	return out, nil
}

// element is one header with what follows it.
type element struct {
	tag asn1.Tag
	// header is the header's size, length the content's; -1 is indefinite.
	header, length int
}

func (e element) constructed() bool { return e.tag&0x20 != 0 }

// minimal is the size of the shortest header for the content.
func (e element) minimal() int { return len(appendHeader(nil, e.tag, e.length)) }

// readElement reads the header of an element that must be there as a whole.
func readElement(in []byte) (element, error) {
	e, err := readHeader(in)
	if err == nil && e.length > len(in)-e.header {
		return element{}, ErrCutOff
	}
	return e, err
}

// readHeader reads a header; what it heads need not be there.
func readHeader(in []byte) (element, error) {
	if len(in) < 2 {
		return element{}, ErrCutOff
	}
	e := element{tag: asn1.Tag(in[0]), header: 2, length: int(in[1])}
	switch {
	case in[0]&0x1f == 0x1f:
		return element{}, fmt.Errorf("%w: tag number above 30", ErrMalformed)
	case in[1] < 0x80:
	case in[1] == 0x80:
		if !e.constructed() {
			return element{}, fmt.Errorf("%w: primitive of indefinite length", ErrMalformed)
		}
		e.length = -1
		return e, nil
	default:
		n := int(in[1] & 0x7f)
		if n > 8 {
			return element{}, fmt.Errorf("%w: bad length", ErrMalformed)
		}
		if len(in) < 2+n {
			return element{}, ErrCutOff
		}
		e.header, e.length = 2+n, 0
		for _, b := range in[2 : 2+n] {
			if e.length > math.MaxInt>>8 {
				return element{}, fmt.Errorf("%w: bad length", ErrMalformed)
			}
			e.length = e.length<<8 | int(b)
		}
	}
	return e, nil
}

// sizeOf is how long the element at the beginning of in is, header and all.
// [ErrCutOff] if in ends before it does.
func sizeOf(in []byte, depth int) (int, error) {
	e, err := readElement(in)
	if err != nil || e.length >= 0 {
		return e.header + e.length, err
	}
	if depth > maxDepth {
		return 0, fmt.Errorf("%w: nested too deeply", ErrMalformed)
	}
	at := e.header
	for {
		if len(in)-at < 2 {
			return 0, ErrCutOff
		}
		if in[at] == 0 && in[at+1] == 0 {
			return at + 2, nil
		}
		n, err := sizeOf(in[at:], depth+1)
		if err != nil {
			return 0, err
		}
		at += n
	}
}

// isDefinite says that in is one element without anything to normalize. Most
// messages are, and need no copy.
func isDefinite(in []byte) bool {
	rest, ok := skipDefinite(in, 0)
	return ok && len(rest) == 0
}

func skipDefinite(in []byte, depth int) (rest []byte, ok bool) {
	e, err := readElement(in)
	if err != nil || depth > maxDepth || e.length < 0 || e.tag == constructedOctets || e.header != e.minimal() {
		return nil, false
	}
	end := e.header + e.length
	if e.constructed() {
		for body := in[e.header:end]; len(body) > 0; {
			if body, ok = skipDefinite(body, depth+1); !ok {
				return nil, false
			}
		}
	}
	return in[end:], true
}

func appendDefinite(out, in []byte, depth int) (done, rest []byte, err error) {
	e, err := readElement(in)
	if err != nil {
		return nil, nil, err
	}
	if depth > maxDepth {
		return nil, nil, fmt.Errorf("%w: nested too deeply", ErrMalformed)
	}
	if !e.constructed() {
		end := e.header + e.length
		out = appendHeader(out, e.tag, e.length)
		return append(out, in[e.header:end]...), in[end:], nil
	}
	start := len(out)
	out, rest, err = appendChildren(out, in, e, depth)
	if err != nil {
		return nil, nil, err
	}
	if e.tag == constructedOctets {
		if out, err = joinOctets(out, start); err != nil {
			return nil, nil, err
		}
		e.tag = asn1.OCTET_STRING
	}
	return insertHeader(out, start, e.tag), rest, nil
}

// appendChildren normalizes the content of a constructed element onto out.
func appendChildren(out, in []byte, e element, depth int) (done, rest []byte, err error) {
	body := in[e.header:]
	if e.length >= 0 {
		body, rest = body[:e.length], body[e.length:]
	}
	for {
		switch {
		case e.length >= 0 && len(body) == 0:
			return out, rest, nil
		case e.length < 0 && len(body) >= 2 && body[0] == 0 && body[1] == 0:
			return out, body[2:], nil
		}
		if out, body, err = appendDefinite(out, body, depth+1); err != nil {
			return nil, nil, err
		}
	}
}

// joinOctets takes the headers away from the OCTET STRINGs in out[start:].
func joinOctets(out []byte, start int) ([]byte, error) {
	to := start
	for from := start; from < len(out); {
		e, err := readElement(out[from:])
		if err != nil {
			return nil, err
		}
		if e.tag != asn1.OCTET_STRING {
			return nil, fmt.Errorf("%w: octet string of other pieces", ErrMalformed)
		}
		from += e.header
		to += copy(out[to:], out[from:from+e.length])
		from += e.length
	}
	return out[:to], nil
}

// insertHeader moves out[start:] to make room for its header.
func insertHeader(out []byte, start int, tag asn1.Tag) []byte {
	header := appendHeader(nil, tag, len(out)-start)
	out = append(out, header...)
	copy(out[start+len(header):], out[start:len(out)-len(header)])
	copy(out[start:], header)
	return out
}

func appendHeader(out []byte, tag asn1.Tag, length int) []byte {
	out = append(out, byte(tag))
	switch {
	case length < 0x80:
		return append(out, byte(length))
	case length < 1<<8:
		return append(out, 0x81, byte(length))
	case length < 1<<16:
		return append(out, 0x82, byte(length>>8), byte(length))
	case length < 1<<24:
		return append(out, 0x83, byte(length>>16), byte(length>>8), byte(length))
	default:
		return append(out, 0x84, byte(length>>24), byte(length>>16), byte(length>>8), byte(length))
	}
}
