package config

import (
	"fmt"
	"strings"
)

// unknown tells of a name that is in no table, and what may have been meant.
func unknown(table []Setting, l Layer, e Entry) Problem {
	p := Problem{Setting: e.Name, Source: l.Origin, Where: e.Where, Wrong: "There is no such setting in this version."}
	p.Cure = "Take it out, or look for its name in the list of settings."
	if near := nearest(table, e.Name); near != "" {
		p.Cure = fmt.Sprintf("Did you mean %q?", near)
	}
	return p
}

// nearest finds the setting that a name is most likely a slip for; empty if
// none is near.
func nearest(table []Setting, name string) string {
	name = plainName(name)
	if len(name) > 2*maxName {
		return ""
	}
	best, distance := "", 3
	for _, s := range table {
		if d := edits(name, plainName(s.Name)); d < distance {
			best, distance = s.Name, d
		}
	}
	return best
}

// maxName is longer than any setting's name.
const maxName = 40

// plainName lets ServerCA, server-ca and server_ca be the same.
func plainName(s string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "", ".", "").Replace(strings.ToLower(s))
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
