package config

import (
	"reflect"
	"testing"

	"smime-agent/platform"
)

func TestSystemPolicyValues(t *testing.T) {
	place := systemPlace{`HKLM\Policies`, FromPolicy}
	l := place.layer(platform.Policy{Private: true, Values: []platform.PolicyValue{
		{Name: "Server", Text: "a.example:1"},
		{Name: "show_notices", Text: "0", Number: true},
		{Name: "log_max_files", Text: "1", Number: true},
		{Name: "server_pin", Items: []string{"x"}},
		{Name: "retry_cap", Odd: true},
	}})
	want := []Entry{
		{Name: "server", Text: "a.example:1", Where: `HKLM\Policies\Server`, Private: true},
		{Name: "show_notices", Text: "false", Where: `HKLM\Policies\show_notices`, Private: true},
		{Name: "log_max_files", Text: "1", Where: `HKLM\Policies\log_max_files`, Private: true},
		{Name: "server_pin", Items: []string{"x"}, Where: `HKLM\Policies\server_pin`, Private: true},
		{Name: "retry_cap", Where: `HKLM\Policies\retry_cap`, Private: true, Unusable: true},
	}
	if !reflect.DeepEqual(l.Entries, want) {
		t.Errorf("%+v", l.Entries)
	}
	if l.Broken || len(l.Problems) != 1 || l.Problems[0].Setting != "retry_cap" {
		t.Errorf("%+v", l)
	}
	if yesOrNo("2") != "2" { // the setting itself says what is wrong with it
		t.Error("2 became yes or no")
	}
}

func TestInstalledIsLowest(t *testing.T) {
	installed := fixed{{Origin: FromFile, File: "installer", Entries: []Entry{
		{Name: "organization", Text: "by installer"}, {Name: "log_level", Text: "debug"}}}}
	s, problems := Load(Sources{Flags: map[string]string{"organization": "by flag"}, Installed: installed})
	if s.Organization != "by flag" || s.LogLevel.String() != "DEBUG" || len(problems) != 0 {
		t.Errorf("%+v, %v", s, problems)
	}
}

// fixed is a source that is always the same.
type fixed []Layer

func (f fixed) Layers() []Layer { return f }
