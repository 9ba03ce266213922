package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Load reads all sources. The settings can be used whatever the problems:
// a value that is wrong leaves the default in force.
func Load(s Sources) (Settings, []Problem) { return Reload(Settings{}, s) }

// Reload reads all sources again. A value that is wrong now, or whose file
// cannot be read now, leaves the old one in force, wherever it came from. A
// lower source does not step in: policy must not be lifted by breaking it. Only
// at the first reading nobody knows what a file that cannot be read would have
// set, and lower sources count.
func Reload(old Settings, s Sources) (Settings, []Problem) {
	r := reader{old: old, layers: s.layers(), table: Table()}
	r.report()
	var out Settings
	for _, setting := range r.table {
		out.effective = append(out.effective, r.settle(&out, setting))
	}
	return out, append(r.problems, contradictions(out)...)
}

type reader struct {
	old      Settings
	layers   []Layer
	table    []Setting
	problems []Problem
}

// report tells what is wrong with the layers as such.
func (r *reader) report() {
	for _, l := range r.layers {
		r.problems = append(r.problems, l.Problems...)
		for _, e := range l.Entries {
			if _, known := find(r.table, e.Name); !known {
				r.problems = append(r.problems, unknown(r.table, l, e))
			}
		}
	}
}

func find(table []Setting, name string) (Setting, bool) {
	i := slices.IndexFunc(table, func(s Setting) bool { return s.Name == name })
	if i < 0 {
		return Setting{}, false
	}
	return table[i], true
}

// settle finds the value of one setting: from the highest layer that has it.
func (r *reader) settle(out *Settings, s Setting) effective {
	for i, l := range r.layers {
		before, had := r.before(s.Name)
		if l.Broken && had && belongs(before, l) {
			return r.keep(out, s)
		}
		for _, e := range l.Entries {
			if e.Name != s.Name || e.empty() {
				continue
			}
			r.warnOfFlag(s, l, r.layers[i+1:])
			if e.Unusable {
				return r.keep(out, s)
			}
			if f := s.put(out, e); f != nil {
				r.problems = append(r.problems, Problem{Setting: s.Name, Source: l.Origin, Where: e.Where, Wrong: f.wrong, Cure: f.cure})
				return r.keep(out, s)
			}
			return made(s, l.Origin, e)
		}
	}
	return standard(out, s)
}

// before finds what was in force, if a source set it.
func (r *reader) before(name string) (effective, bool) {
	for _, e := range r.old.effective {
		if e.Name == name && e.Source != FromDefault {
			return e, true
		}
	}
	return effective{}, false
}

// belongs says that the value came from this layer, which may be a whole folder.
func belongs(e effective, l Layer) bool {
	if e.Source != l.Origin {
		return false
	}
	file := e.Where
	if i := strings.LastIndexByte(file, ':'); i > 0 {
		file = file[:i] // the line
	}
	return file == l.File || filepath.Dir(file) == l.File
}

// keep leaves the last good value in force, or the default if there was none.
func (r *reader) keep(out *Settings, s Setting) effective {
	before, had := r.before(s.Name)
	if !had || before.again(out) != nil {
		return standard(out, s)
	}
	before.Kept = true
	return before
}

// warnOfFlag: whoever gives a flag expects it to count.
func (r *reader) warnOfFlag(s Setting, winner Layer, lower []Layer) {
	if winner.Origin != FromPolicy {
		return
	}
	for _, l := range lower {
		for _, e := range l.Entries {
			if l.Origin == FromFlag && e.Name == s.Name {
				r.problems = append(r.problems, Problem{Setting: s.Name, Source: FromFlag, Where: e.Where,
					Wrong: fmt.Sprintf("The flag has no effect, because policy sets it (%s).", winner.File), Cure: "Leave the flag out, or change the policy."})
			}
		}
	}
}

func (e Entry) empty() bool { return e.Text == "" && e.Items == nil && !e.Unusable }

// standard puts the default, which a test holds to be good.
func standard(out *Settings, s Setting) effective {
	e := Entry{Name: s.Name, Text: s.Default}
	if s.Default != "" {
		s.put(out, e)
	}
	return made(s, FromDefault, e)
}

func made(s Setting, from Origin, e Entry) effective {
	shown := e.Text
	if e.Items != nil {
		shown = strings.Join(e.Items, ", ")
	}
	if s.Type == Hidden {
		shown = Secret(shown).String()
	}
	return effective{
		Value: Value{Name: s.Name, Value: shown, Source: from, Where: e.Where, Default: s.Default, Since: s.Since, Visible: s.Visible, Restart: s.Restart},
		again: func(out *Settings) *fault { return s.put(out, e) },
	}
}

// contradictions are settings that are each right, but not together.
func contradictions(s Settings) []Problem {
	var found []Problem
	tell := func(name, wrong, cure string) {
		p := Problem{Setting: name, Source: FromDefault, Wrong: wrong, Cure: cure}
		for _, e := range s.effective {
			if e.Name == name {
				p.Source, p.Where = e.Source, e.Where
			}
		}
		found = append(found, p)
	}
	if s.Server != "" && s.ServerCA == "" && len(s.ServerPins) == 0 {
		tell("server", "Nothing says which server to trust, so the agent does not connect.", "Set server_ca or server_pin.")
	}
	if s.Proxy.Mode != ProxyURL && (s.ProxyUser != "" || s.ProxyPasswordFile != "") {
		tell("proxy", "There is a name or a password for a proxy, but no proxy.", "Set proxy to the proxy's URL, or take proxy_user and proxy_password_file out.")
	}
	if s.ProxyUser == "" && s.ProxyPasswordFile != "" {
		tell("proxy_password_file", "There is a password for the proxy, but no name.", "Set proxy_user too.")
	}
	if s.SyncFloor > s.RetryCap {
		tell("sync_floor", "It is longer than retry_cap.", "Set retry_cap to at least sync_floor.")
	}
	return found
}
