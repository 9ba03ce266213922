package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// second gives the line where a document begins behind the first; 0 if there is none.
func second(tree *ast.File) int {
	begun := false
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		if begun {
			return max(doc.Body.GetToken().Position.Line-1, 1)
		}
		begun = true
	}
	return 0
}

// departments are compared without what is around them, as those of people are.
func (r *reader) departments(path string, names []string) []string {
	out := make([]string, 0, len(names))
	for i, name := range names {
		name = strings.TrimSpace(name)
		if name == "" {
			r.later(r.at(fmt.Sprintf("%s[%d]", path, i)), `Name a department, or write "*" for everybody.`, "A department of the rule has no name.")
		}
		out = append(out, name)
	}
	return out
}

// postponements has no word for none: 0 is what the contract has for its default.
func (r *reader) postponements(path, text string) uint32 {
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if whole, _, cut := strings.Cut(text, "."); cut && r.catalog.Applied {
		n, err = strconv.ParseUint(whole, 10, 32) // as earlier versions did
	}
	if err != nil {
		r.problem(r.at(path), fmt.Sprintf("Write a number from 1 to %d.", maxPostponements), "Nobody can postpone %s times.", text)
	} else if n > maxPostponements {
		r.later(r.at(path), fmt.Sprintf("Write a number from 1 to %d.", maxPostponements), "Nobody can postpone %s times.", text)
	} else if n == 0 {
		r.warn(r.at(path), `Write at least 1, or "consent: notify", which asks nobody; without the line it is 5.`, "People can postpone 5 times: 0 is not a number of times that agents know.")
	}
	return uint32(n)
}

// What agents take of one rule; they refuse a policy with more as a whole.
const (
	maxList          = 64
	maxNote          = 4 << 10
	maxPostponements = 1000
)

func (r *reader) bounds(path string, y ruleYAML) {
	for _, list := range []struct {
		name string
		n    int
	}{{"stores", len(y.Stores)}, {"modules", len(y.Modules)}, {"note", len(y.Note)}} {
		if list.n > maxList {
			r.later(r.at(path+"."+list.name), fmt.Sprintf("Write at most %d.", maxList), "There are %d under %q, more than agents take.", list.n, list.name)
		}
	}
	for tag, note := range y.Note {
		if len(note) > maxNote {
			r.later(r.at(path+".note"), "Write a sentence or two.", "The note in %q has %d bytes; agents cut it off at %d.", tag, len(note), maxNote)
		}
	}
}
