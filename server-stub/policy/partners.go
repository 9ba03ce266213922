package policy

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// PartnerPaths are the files and folders of partners' certificates that rules
// name. Rules that cannot be read name none: Parse says what is wrong with them.
func PartnerPaths(rules []byte) []string {
	rules = bytes.TrimPrefix(rules, []byte(byteOrderMark))
	if len(rules) > maxYAML || tooDeep(rules) > 0 {
		return nil
	}
	var file struct {
		Partners []string `yaml:"partners"`
	}
	if err := yaml.Unmarshal(rules, &file); err != nil {
		return nil
	}
	return file.Partners
}

// PartnerEndings are those of the files that are taken out of a folder.
func PartnerEndings() []string { return []string{".cer", ".crt", ".pem", ".der", ".p7b", ".p7c"} }

// partners reads the files that came with the rules. A warning does not keep the
// policy from being used.
func (r *reader) partners(paths []string, p *Policy) {
	named := func(f PartnerFile) bool {
		return slices.ContainsFunc(paths, func(at string) bool { return under(at, f.Name) })
	}
	for i, at := range paths {
		if !slices.ContainsFunc(r.catalog.Partners, func(f PartnerFile) bool { return under(at, f.Name) }) {
			r.problem(r.at(fmt.Sprintf("$.partners[%d]", i)),
				"Put certificates there ("+strings.Join(PartnerEndings(), ", ")+"), beside this file, or take the line out.",
				"No certificate was found at %q.", at)
		}
	}
	files := slices.DeleteFunc(slices.Clone(r.catalog.Partners), func(f PartnerFile) bool { return !named(f) })
	slices.SortStableFunc(files, func(a, b PartnerFile) int { return strings.Compare(a.Name, b.Name) })
	set, findings := readPartners(files, r.catalog.Now)
	for _, f := range findings {
		problem := Problem{File: f.File, Line: f.Line, What: f.What, Cure: f.Cure}
		if f.Warning {
			p.Warnings = append(p.Warnings, problem)
		} else if len(r.problems) < maxProblems {
			r.problems = append(r.problems, problem)
		}
	}
	p.Partners = set
}

// under says that a file is the one that is named, or in the folder that is.
func under(at, name string) bool {
	at, name = path.Clean(strings.ReplaceAll(at, `\`, "/")), path.Clean(name)
	return name == at || path.Dir(name) == at
}
