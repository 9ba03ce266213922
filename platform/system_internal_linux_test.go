package platform

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestLocale(t *testing.T) {
	type env map[string]string
	cases := []struct {
		env  env
		want string
	}{
		{env{}, "en"},
		{env{"LANG": "zh_CN.UTF-8"}, "zh-CN"},
		{env{"LANG": "de_DE@euro"}, "de-DE"},
		{env{"LANG": "sr_RS@latin"}, "sr-Latn-RS"},
		{env{"LANG": "fr"}, "fr"},
		{env{"LANG": "C"}, "en"},
		{env{"LANG": "C.UTF-8"}, "en"},
		{env{"LANG": "POSIX"}, "en"},
		{env{"LANG": "not a locale"}, "en"},
		{env{"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_GB.UTF-8"}, "en-GB"},
		{env{"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_GB.UTF-8", "LC_ALL": "zh_TW.UTF-8"}, "zh-TW"},
		{env{"LANG": "en_US.UTF-8", "LANGUAGE": "zh_CN:en"}, "zh-CN"},
		{env{"LANG": "en_US.UTF-8", "LANGUAGE": ":??:zh_CN"}, "zh-CN"},
		{env{"LANG": "en_US.UTF-8", "LANGUAGE": "??"}, "en-US"},
		{env{"LANG": "C", "LANGUAGE": "zh_CN"}, "en"}, // as gettext has it
		{env{"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, "en"},
		{env{"LANGUAGE": "zh_CN"}, "zh-CN"},
	}
	for _, c := range cases {
		if got := locale(func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%v: %q, want %q", c.env, got, c.want)
		}
	}
}

func TestCurrentUser(t *testing.T) {
	t.Setenv("LC_ALL", "zh_CN.UTF-8")
	t.Setenv("LANGUAGE", "")
	u, err := CurrentUser()
	if err != nil || u.ID != "uid:"+strconv.Itoa(os.Geteuid()) || u.Locale != "zh-CN" || u.UPN != "" {
		t.Errorf("%+v, %v", u, err)
	}
	if os.Geteuid() == 0 && u.Account != "root" {
		t.Errorf("uid 0 is %q", u.Account)
	}
	if a := accountOf(userID(2_000_000_000)); a != "" {
		t.Errorf("a uid without an account is %q", a)
	}
}

func TestPrettyName(t *testing.T) {
	for release, want := range map[string]string{
		"NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n": "Debian GNU/Linux 12 (bookworm)",
		"PRETTY_NAME='Some Linux'":                                 "Some Linux",
		"PRETTY_NAME=Plain\n":                                      "Plain",
		"PRETTY_NAME=\"quoted \\\"name\\\"\"":                      `quoted "name"`,
		"PRETTY_NAME=":                                             "",
		"":                                                         "",
	} {
		if got := prettyName(release); got != want {
			t.Errorf("%q: %q, want %q", release, got, want)
		}
	}
}

func TestMachineID(t *testing.T) {
	for text, want := range map[string]string{
		"3d1219c7c4c5404aaa1f6d2a48adfda4\n": "3d1219c7c4c5404aaa1f6d2a48adfda4",
		"uninitialized\n":                    "",
		"":                                   "",
		"3D1219C7C4C5404AAA1F6D2A48ADFDA4":   "",
	} {
		if got := machineID(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestThisMachine(t *testing.T) {
	m := ThisMachine()
	name, err := os.Hostname()
	if err != nil || m.Hostname != name || m.OS != "linux" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestSystemPaths(t *testing.T) {
	p := SystemPaths()
	for _, path := range []string{p.Config, p.Policy, p.State, p.Logs, p.Address} {
		if !filepath.IsAbs(path) {
			t.Errorf("%q is not absolute", path)
		}
	}
	if len(p.Address) > maxSocketPath {
		t.Errorf("%q is too long for a socket", p.Address)
	}
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"a\x1b[31mb\x00c":          "a [31mb c",
		"line\nnext\ttab":          "line\nnext\ttab",
		"user\u202egpj.exe\u2069!": "usergpj.exe!",
		"你好 ✓":                     "你好 ✓",
		"bad\xffbyte":              "bad byte",
	} {
		if got := plain(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := plainLine(" a\n b\tc "); got != "a b c" {
		t.Errorf("plainLine: %q", got)
	}
}

func TestDialogEnv(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{"LANG=de_DE.UTF-8"}, "LANGUAGE=en"},
		{[]string{"LANG=de_DE.utf8"}, "LANGUAGE=en"},
		{[]string{"LANG=de_DE.UTF-8", "LC_ALL=C"}, "LC_ALL=C.UTF-8"},
		{[]string{"LANG=C"}, "LC_ALL=C.UTF-8"},
		{nil, "LC_ALL=C.UTF-8"},
	} {
		got := dialogEnv(c.env)
		if got[len(got)-1] != c.want {
			t.Errorf("%v: %v, want %s at the end", c.env, got, c.want)
		}
	}
}
