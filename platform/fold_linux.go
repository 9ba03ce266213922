package platform

import (
	"strings"

	"golang.org/x/text/width"
)

// folded breaks lines at spaces, or between wide letters such as Chinese ones, so
// that none is wider than a number of columns unless a word is. It is for
// dialogs that do not do it themselves.
func folded(text string, columns int) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		lines = append(lines, foldLine([]rune(line), columns)...)
	}
	return strings.Join(lines, "\n")
}

func foldLine(line []rune, columns int) []string {
	var lines []string
	start, used, breakAt := 0, 0, -1 // breakAt is where a next line may begin
	for i, r := range line {
		wide := columnsOf(r) == 2
		if i > start && (line[i-1] == ' ' || wide && !closes(r)) {
			breakAt = i
		}
		used += columnsOf(r)
		if used > columns && breakAt > start && r != ' ' {
			lines = append(lines, strings.TrimRight(string(line[start:breakAt]), " "))
			start, used = breakAt, 0
			for _, moved := range line[start : i+1] {
				used += columnsOf(moved)
			}
		}
	}
	return append(lines, string(line[start:]))
}

// columnsOf follows UAX #11.
func columnsOf(r rune) int {
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	default:
		return 1
	}
}

// closes says that a Chinese line must not begin with this mark (GB/T 15834).
func closes(r rune) bool { return strings.ContainsRune("，。、；：？！）》」』】", r) }
