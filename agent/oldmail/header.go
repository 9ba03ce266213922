package oldmail

import (
	"bytes"
	"mime"
	"slices"
	"strings"
)

// wanted are the only fields of a header that are kept.
var wanted = []string{"content-type", "content-transfer-encoding", "content-disposition", "x-mozilla-status"}

// fieldLimit bounds one field with its folded lines, in octets. RFC 5322 allows
// any length; a Content-Type with a boundary has about 100.
const fieldLimit = 16 << 10

// header collects the fields of a part that are wanted. It takes what real mail
// has, good or bad: a line that is no field is passed over.
type header struct {
	fields map[string]string
	// current is the field that a folded line continues; empty for one that is
	// not wanted.
	current string
}

func (h *header) add(line []byte, begins bool) {
	if !begins || line[0] == ' ' || line[0] == '\t' {
		h.more(line)
		return
	}
	h.current = ""
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) > 64 {
		return
	}
	field := strings.ToLower(string(bytes.TrimSpace(name)))
	if !slices.Contains(wanted, field) {
		return
	}
	if _, twice := h.fields[field]; twice {
		return // the first counts, as in most mail programs
	}
	if h.fields == nil {
		h.fields = map[string]string{}
	}
	h.current, h.fields[field] = field, ""
	h.more(value)
}

func (h *header) more(piece []byte) {
	if h.current == "" {
		return
	}
	have := h.fields[h.current]
	piece = bytes.TrimRight(piece, "\r\n")
	h.fields[h.current] = have + string(piece[:min(len(piece), fieldLimit-len(have))])
}

// contentType reads a media type, or a disposition, with its parameters: as the
// standards have it, and if it is not quite so, as far as it can be understood.
func contentType(field string) (kind string, params map[string]string) {
	kind, params, err := mime.ParseMediaType(field)
	if err == nil {
		return kind, params
	}
	pieces := splitOutsideQuotes(field)
	params = map[string]string{}
	for _, piece := range pieces[1:] {
		name, value, _ := strings.Cut(piece, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if _, twice := params[name]; !twice {
			params[name] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return strings.ToLower(strings.TrimSpace(pieces[0])), params
}

// splitOutsideQuotes splits at semicolons; there is at least one piece.
func splitOutsideQuotes(s string) []string {
	var pieces []string
	quoted, from := false, 0
	for i := range len(s) {
		switch {
		case s[i] == '"' && (i == 0 || s[i-1] != '\\'):
			quoted = !quoted
		case s[i] == ';' && !quoted:
			pieces = append(pieces, s[from:i])
			from = i + 1
		}
	}
	return append(pieces, s[from:])
}
