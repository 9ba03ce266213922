package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"smime-agent/platform"
)

// SystemPolicy is managed policy where this system keeps it: what its own
// management has put at the place, or a folder of files.
func SystemPolicy(place string) Source { return systemPlace{place, FromPolicy} }

// systemPlace is a place that the system keeps settings at.
type systemPlace struct {
	place  string
	origin Origin
}

// Layers is one layer at most, unless the place is a folder.
func (p systemPlace) Layers() []Layer {
	policy, err := platform.ReadPolicy(p.place)
	switch {
	case errors.Is(err, platform.ErrUnsupported):
		return PolicyFolder(p.place).Layers()
	case errors.Is(err, platform.ErrNotFound):
		return nil
	case err != nil:
		return []Layer{p.broken(err)}
	}
	return []Layer{p.layer(policy)}
}

func (p systemPlace) broken(err error) Layer {
	problem := Problem{Source: p.origin, Where: p.place, Wrong: fmt.Sprintf("It cannot be read: %v.", err), Cure: "Let this account read it, or deploy the policy again."}
	if errors.Is(err, platform.ErrDenied) {
		problem.Wrong = fmt.Sprintf("It is not used, because another user may have written it: %v.", err)
		problem.Cure = "Let nobody but administrators write it."
		problem.Insecure = true
	}
	return Layer{Origin: p.origin, File: p.place, Broken: true, Problems: []Problem{problem}}
}

// layer takes the values over. A system's names may be in any case, and it has
// numbers for yes and no.
func (p systemPlace) layer(policy platform.Policy) Layer {
	l := Layer{Origin: p.origin, File: p.place}
	table := Table()
	for _, v := range policy.Values {
		e := Entry{Name: strings.ToLower(v.Name), Text: v.Text, Items: v.Items, Where: p.where(v.Name), Private: policy.Private}
		setting, known := find(table, e.Name)
		switch {
		case v.Odd:
			e.Unusable = true
			l.Problems = append(l.Problems, Problem{Setting: e.Name, Source: p.origin, Where: e.Where,
				Wrong: "The value is neither text nor a number nor a list of texts.", Cure: "Write it as text."})
		case known && v.Number && setting.Type == Bool:
			e.Text = yesOrNo(v.Text)
		}
		l.Entries = append(l.Entries, e)
	}
	return l
}

// where names a value: behind a colon in a file, below a key of the registry.
func (p systemPlace) where(name string) string {
	if filepath.IsAbs(p.place) {
		return p.place + ":" + name
	}
	return p.place + `\` + name
}

func yesOrNo(number string) string {
	switch number {
	case "0":
		return "false"
	case "1":
		return "true"
	}
	return number
}
