package status

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// ANSI colors (ECMA-48, SGR).
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func (p *page) paint(color, s string) string {
	if !p.o.Color {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

func (p *page) severity(s Severity) string {
	word := "[" + p.t.Word("severity", clean(string(s))) + "]"
	switch s {
	case OK:
		return p.paint(green, word)
	case Info:
		return p.paint(cyan, word)
	case Warning:
		return p.paint(yellow, word)
	case Error, Unknown:
		return p.paint(red, word)
	}
	return p.paint(red, word)
}

// clean takes away what could drive a terminal or hide in a line: control
// characters and the marks that turn the direction of writing. What the report
// says comes partly from users' own sessions and is read by administrators.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, s)
}

// columns is how many cells of a terminal a text takes; Chinese characters take
// two (Unicode UAX #11).
func columns(s string) int {
	n := 0
	for _, r := range s {
		switch width.LookupRune(r).Kind() {
		case width.EastAsianWide, width.EastAsianFullwidth:
			n += 2
		default:
			if !unicode.Is(unicode.Mn, r) {
				n++
			}
		}
	}
	return n
}

// table writes aligned columns, two blanks apart.
func (p *page) table(head []string, rows [][]string) {
	all := rows
	if head != nil {
		all = append([][]string{head}, rows...)
	}
	var widths []int
	for _, row := range all {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], columns(cell))
		}
	}
	for n, row := range all {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-columns(cell)+2))
			}
		}
		line := b.String()
		if n == 0 && head != nil {
			line = p.paint(bold, strings.TrimRight(line, " "))
		}
		p.line(line)
	}
}

// wrap breaks a text at blanks to the page's width; further lines are indented.
func (p *page) wrap(s string, indent int) string {
	if p.o.Width <= indent+20 {
		return s
	}
	var b strings.Builder
	used := 0
	for i, word := range strings.SplitAfter(s, " ") {
		n := columns(word)
		if i > 0 && used+columns(strings.TrimRight(word, " ")) > p.o.Width-12 {
			b.WriteString("\n" + strings.Repeat(" ", indent))
			used = indent
		}
		b.WriteString(word)
		used += n
	}
	return b.String()
}
