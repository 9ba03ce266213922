package text

import (
	"embed"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
)

// The catalogs are read here and not by a library for templates: text/template
// finds methods by their names at run time, and where that can happen the linker
// keeps every exported method of the program. It made our programs a fifth
// larger, in memory too.

//go:embed en.json zh-CN.json
var catalogs embed.FS

// catalog has the sentences of one language by name; the forms of a sentence
// that changes with a number have the form's name behind a dot.
type catalog map[string]string

// Each language is read when it is first spoken.
var read = map[string]func() catalog{
	English: sync.OnceValue(func() catalog { return readCatalog(English) }),
	Chinese: sync.OnceValue(func() catalog { return readCatalog(Chinese) }),
}

func catalogOf(tag string) catalog { return read[tag]() }

// readCatalog reads a part of the program: a catalog that does not parse leaves
// its words untranslated, and the tests keep such a one from being built.
func readCatalog(tag string) catalog {
	c := catalog{}
	raw, err := catalogs.ReadFile(tag + ".json")
	if err != nil {
		return c
	}
	var tree map[string]any
	if json.Unmarshal(raw, &tree) == nil {
		c.add("", tree)
	}
	return c
}

func (c catalog) add(path string, tree map[string]any) {
	for name, v := range tree {
		switch v := v.(type) {
		case map[string]any:
			c.add(path+name+".", v)
		case string:
			c[path+name] = v
		}
	}
}

const (
	open  = "{{."
	shut  = "}}"
	empty = "<no value>"
)

// fill puts data into the places of a sentence, "{{.Mailbox}}". A place for which
// there is nothing says so.
func fill(s string, data map[string]any) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, open)
		name, after, shuts := strings.Cut(rest, shut)
		if b.WriteString(before); !found || !shuts {
			return b.String()
		}
		if v, ok := data[name]; ok {
			fmt.Fprint(&b, v)
		} else {
			b.WriteString(empty)
		}
		s = after
	}
}

// otherForm is the form that every language has (Unicode TR 35, plural rules).
const otherForm = "other"

// formFor is the form of a sentence with a whole number.
func formFor(tag string, n int) string {
	form := plural.Cardinal.MatchPlural(language.Make(tag), n, 0, 0, 0, 0)
	if form == plural.One {
		return "one"
	}
	return otherForm
}
