package platform

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxPrefs bounds a preferences file; those of people who used Thunderbird for
// twenty years have a few hundred kB.
const maxPrefs = 16 << 20

// pref is one statement of a preferences file.
type pref struct {
	name string
	// value is a string, an int or a bool.
	value any
	// start and end bound the statement with its semicolon.
	start, end int
}

// errPrefs is a file that is none of Mozilla's preferences; it is left as it is.
var errPrefs = errors.New("the preferences cannot be read")

// parsePrefs reads a preferences file by the grammar of Mozilla's own parser
// (modules/libpref/parser/src/lib.rs): user_pref("name", value); with comments.
// It is stricter in that nothing is skipped: who writes must understand all.
func parsePrefs(data []byte) ([]pref, error) {
	if len(data) > maxPrefs {
		return nil, fmt.Errorf("%w: %d bytes", errPrefs, len(data))
	}
	s := &prefScanner{data: data}
	s.at = len(data) - len(bytes.TrimPrefix(data, []byte("\ufeff")))
	var all []pref
	for s.space(); s.at < len(data) && s.err == nil; s.space() {
		all = append(all, s.statement())
	}
	if s.err != nil {
		return nil, s.err
	}
	return all, nil
}

type prefScanner struct {
	data []byte
	at   int
	err  error
}

func (s *prefScanner) fail(what string) {
	if s.err == nil {
		s.err = fmt.Errorf("%w: line %d: %s", errPrefs, 1+bytes.Count(s.data[:min(s.at, len(s.data))], []byte("\n")), what)
	}
}

// space goes past white space and comments.
func (s *prefScanner) space() {
	for s.at < len(s.data) {
		rest := s.data[s.at:]
		switch {
		case strings.IndexByte(" \t\r\n\v\f", rest[0]) >= 0:
			s.at++
		case rest[0] == '#' || bytes.HasPrefix(rest, []byte("//")):
			s.at += lineLength(rest)
		case bytes.HasPrefix(rest, []byte("/*")):
			end := bytes.Index(rest[2:], []byte("*/"))
			if end < 0 {
				s.fail("a comment without end")
				return
			}
			s.at += end + 4
		default:
			return
		}
	}
}

func lineLength(data []byte) int {
	if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
		return i
	}
	return len(data)
}

// take goes past one of the words, the first that fits.
func (s *prefScanner) take(words ...string) string {
	s.space()
	for _, w := range words {
		if bytes.HasPrefix(s.data[s.at:], []byte(w)) {
			s.at += len(w)
			return w
		}
	}
	s.fail("expected " + strings.Join(words, " or "))
	return ""
}

func (s *prefScanner) statement() pref {
	p := pref{start: s.at}
	s.take("user_pref", "sticky_pref", "pref")
	s.take("(")
	s.space()
	p.name = s.quoted()
	s.take(",")
	s.space()
	p.value = s.value()
	for s.err == nil && s.take(")", ",") == "," {
		s.take("sticky", "locked")
	}
	s.take(";")
	p.end = s.at
	return p
}

func (s *prefScanner) value() any {
	switch {
	case s.at >= len(s.data):
		s.fail("a value is missing")
		return nil
	case s.data[s.at] == '"' || s.data[s.at] == '\'':
		return s.quoted()
	case s.data[s.at] == 't' || s.data[s.at] == 'f':
		return s.take("true", "false") == "true"
	}
	start := s.at
	for s.at < len(s.data) && (s.data[s.at] >= '0' && s.data[s.at] <= '9' || s.at == start && strings.IndexByte("+-", s.data[s.at]) >= 0) {
		s.at++
	}
	n, err := strconv.ParseInt(string(s.data[start:s.at]), 10, 32)
	if err != nil {
		s.fail("a value that is none")
	}
	return int(n)
}

// quoted reads a string in either kind of quotes.
func (s *prefScanner) quoted() string {
	if s.at >= len(s.data) || s.data[s.at] != '"' && s.data[s.at] != '\'' {
		s.fail("expected a string")
		return ""
	}
	quote := s.data[s.at]
	var text []byte
	for s.at++; s.at < len(s.data); s.at++ {
		switch c := s.data[s.at]; c {
		case quote:
			s.at++
			return string(text)
		case '\\':
			text = s.escaped(text)
		case 0:
			s.fail("a NUL in a string")
			return ""
		default:
			text = append(text, c)
		}
		if s.err != nil {
			return ""
		}
	}
	s.fail("a string without end")
	return ""
}

// escaped reads what follows a backslash and stays on its last byte.
func (s *prefScanner) escaped(text []byte) []byte {
	s.at++
	if s.at >= len(s.data) {
		s.fail("a string without end")
		return text
	}
	switch c := s.data[s.at]; c {
	case '"', '\'', '\\':
		return append(text, c)
	case 'n':
		return append(text, '\n')
	case 'r':
		return append(text, '\r')
	case 'x':
		return utf8.AppendRune(text, s.hex(2))
	case 'u':
		return utf8.AppendRune(text, s.surrogates(s.hex(4)))
	}
	s.fail("an escape that is none")
	return text
}

// hex reads n digits behind the present byte.
func (s *prefScanner) hex(n int) rune {
	if s.at+n >= len(s.data) {
		s.fail("an escape without end")
		return 0
	}
	v, err := strconv.ParseUint(string(s.data[s.at+1:s.at+1+n]), 16, 32)
	if err != nil || v == 0 {
		s.fail("an escape that is none")
	}
	s.at += n
	return rune(v)
}

// surrogates joins a pair (RFC 2781).
func (s *prefScanner) surrogates(high rune) rune {
	if high < 0xd800 || high > 0xdbff {
		return high
	}
	if !bytes.HasPrefix(s.data[min(s.at+1, len(s.data)):], []byte(`\u`)) {
		s.fail("half a character")
		return 0
	}
	s.at += 2
	low := s.hex(4)
	if low < 0xdc00 || low > 0xdfff {
		s.fail("half a character")
		return 0
	}
	return 0x10000 + (high-0xd800)<<10 + (low - 0xdc00)
}

// prefLine writes a statement as Mozilla does.
func prefLine(name string, value any) []byte {
	var text string
	switch v := value.(type) {
	case string:
		text = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(v) + `"`
	default:
		text = fmt.Sprint(v)
	}
	return []byte(`user_pref("` + name + `", ` + text + `);`)
}

// prefsFile is a preferences file with what it says.
type prefsFile struct {
	data []byte
	list []pref
}

// find gives the statement that counts: the last of that name.
func (f prefsFile) find(name string) (pref, bool) {
	for _, p := range slices.Backward(f.list) {
		if p.name == name {
			return p, true
		}
	}
	return pref{}, false
}

// newline is the file's own.
func (f prefsFile) newline() string {
	if bytes.Contains(f.data, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

// with gives the file with one statement replaced, or added at the end.
func (f prefsFile) with(name string, statement []byte) (prefsFile, error) {
	var data []byte
	if p, ok := f.find(name); ok {
		data = append(append(append(data, f.data[:p.start]...), statement...), f.data[p.end:]...)
	} else {
		data = append(append(data, f.data...), f.missingEnd()...)
		data = append(append(data, statement...), f.newline()...)
	}
	return newPrefsFile(data)
}

// missingEnd is the end that the file's last line lacks, or empty.
func (f prefsFile) missingEnd() string {
	if len(f.data) == 0 || f.data[len(f.data)-1] == '\n' {
		return ""
	}
	return f.newline()
}

// without gives the file with a statement taken out, and its line if nothing
// else is on it.
func (f prefsFile) without(name string) (prefsFile, error) {
	p, ok := f.find(name)
	if !ok {
		return f, nil
	}
	start, end := p.start, p.end
	if start == 0 || f.data[start-1] == '\n' {
		rest := f.data[end:]
		for _, eol := range []string{"\r\n", "\n"} {
			if bytes.HasPrefix(rest, []byte(eol)) {
				end += len(eol)
				break
			}
		}
	}
	return newPrefsFile(append(append([]byte(nil), f.data[:start]...), f.data[end:]...))
}

func newPrefsFile(data []byte) (prefsFile, error) {
	list, err := parsePrefs(data)
	return prefsFile{data, list}, err
}
