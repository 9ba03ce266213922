package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"howett.net/plist"

	"smime-agent/platform"
)

// PropertyList is managed policy in one property list, XML or binary, as device
// management files it: a dictionary of names to values.
type PropertyList string

// Layers reads the file; where there is none, nothing is managed.
func (p PropertyList) Layers() []Layer {
	path := string(p)
	data, private, err := platform.ReadTrusted(path, maxFile)
	if errors.Is(err, platform.ErrNotFound) {
		return nil
	}
	if err != nil {
		return []Layer{brokenLayer(path, FromPolicy, err)}
	}
	l := Layer{Origin: FromPolicy, File: path}
	var values map[string]any
	if _, err := plist.Unmarshal(data, &values); err != nil {
		// The parser's words may repeat the text, and there may be a secret in it.
		l.Broken = true
		l.Problems = []Problem{{Source: FromPolicy, Where: path, Wrong: "The file is not a property list with a dictionary, so nothing in it counts.",
			Cure: "Install the configuration profile again."}}
		return []Layer{l}
	}
	l.Entries, l.Problems = readPropertyList(values, path, private)
	return []Layer{l}
}

// readPropertyList leaves out what describes the profile itself: its keys begin
// with "Payload" (Apple, "Profile-Specific Payload Keys").
func readPropertyList(values map[string]any, path string, private bool) (entries []Entry, problems []Problem) {
	names := make([]string, 0, len(values))
	for name := range values {
		if !strings.HasPrefix(name, "Payload") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		e := Entry{Name: name, Where: path + ":" + name, Private: private}
		if !fillEntry(&e, values[name]) {
			e.Text, e.Items, e.Unusable = "", nil, true
			problems = append(problems, Problem{Setting: name, Source: FromPolicy, Where: e.Where,
				Wrong: fmt.Sprintf("It is of a type that no setting has (%T).", values[name]),
				Cure:  "Use a string, a whole number, a boolean, or an array of strings."})
		}
		entries = append(entries, e)
	}
	return entries, problems
}

// fillEntry writes a value as the other sources do.
func fillEntry(e *Entry, value any) bool {
	list, isList := value.([]any)
	if !isList {
		var ok bool
		e.Text, ok = plistScalar(value)
		return ok
	}
	e.Items = []string{}
	for _, item := range list {
		s, ok := plistScalar(item)
		if !ok {
			return false
		}
		e.Items = append(e.Items, s)
	}
	return true
}

func plistScalar(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case uint64:
		return strconv.FormatUint(v, 10), true
	case int64:
		return strconv.FormatInt(v, 10), true
	}
	return "", false
}
