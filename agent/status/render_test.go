package status

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"smime-agent/agent/enroll"
)

func render(t *testing.T, r Report, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTextInBothLanguages(t *testing.T) {
	r := Build(facts(nil), []enroll.Enrollment{credential(func(e *enroll.Enrollment) { e.NotAfter = now })}, now)
	en, zh := render(t, r, Options{Locale: "en"}), render(t, r, Options{Locale: "zh_CN.UTF-8"})
	for _, want := range []string{"Contoso", "ann@corp.example", "active", "MAILBOX", "[error]", "-> Run: smime-agent renew ann@corp.example"} {
		if !strings.Contains(en, want) {
			t.Errorf("no %q in\n%s", want, en)
		}
	}
	for _, want := range []string{"Contoso", "ann@corp.example", "使用中", "邮箱", "[错误]", "smime-agent renew ann@corp.example"} {
		if !strings.Contains(zh, want) {
			t.Errorf("no %q in\n%s", want, zh)
		}
	}
}

func TestColumnsAlignInChinese(t *testing.T) {
	var b bytes.Buffer
	p := &page{w: &b, o: Options{}}
	p.table([]string{"邮箱", "状态"}, [][]string{{"a@b.example", "使用中"}, {"中文名称", "x"}})
	want := -1
	for line := range strings.Lines(b.String()) {
		cells := strings.Fields(line)
		at := columns(line[:strings.LastIndex(line, cells[1])])
		if want >= 0 && at != want {
			t.Errorf("second column at %d and %d:\n%s", want, at, b.String())
		}
		want = at
	}
}

func TestTextDoesNotDriveTheTerminal(t *testing.T) {
	evil := "x\x1b]0;owned\a\u202Ey\r\nz"
	r := Build(facts(func(f *Facts) {
		f.Users[0].Account, f.Organization.Name = evil, evil
		f.Raised = []Raised{{Code: SettingsInvalid, Detail: evil}, {Code: enroll.Code(evil)}}
	}), []enroll.Enrollment{credential(func(e *enroll.Enrollment) {
		e.Store, e.Assignment.Mailboxes, e.Protection, e.State = evil, []string{evil}, evil, enroll.State(evil)
		e.Problem = problem(enroll.CodeStoreDenied, day)
	})}, now)
	out := render(t, r, Options{})
	for _, bad := range []string{"\x1b", "\a", "\r", "\u202E"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q in %q", bad, out)
		}
	}
}

func TestColorOnlyWhenAsked(t *testing.T) {
	r := Build(facts(nil), nil, now)
	if strings.Contains(render(t, r, Options{}), "\x1b") {
		t.Error("color without being asked")
	}
	if !strings.Contains(render(t, r, Options{Color: true}), "\x1b[32m[OK]\x1b[0m") {
		t.Error("no color")
	}
}

func TestWrapKeepsToTheWidth(t *testing.T) {
	r := Build(facts(func(f *Facts) { f.Device = Device{} }), nil, now)
	for line := range strings.Lines(render(t, r, Options{Width: 60})) {
		if columns(strings.TrimRight(line, "\n")) > 60 {
			t.Errorf("too wide: %q", line)
		}
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestTextReportsTheWritersError(t *testing.T) {
	if Text(brokenPipe{}, Build(facts(nil), nil, now), Options{}) == nil {
		t.Error("no error")
	}
}

func TestChecksAndSettings(t *testing.T) {
	var b bytes.Buffer
	checks := Checks{[]Check{{Name: "disk", OK: true, Detail: "1 GB"}, {Name: "clock", Detail: "off", Cure: "Set it."}}}
	if err := checks.Text(&b, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[OK]  disk: 1 GB", "[error]  clock: off", "-> Set it.", "1 check failed."} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	b.Reset()
	settings := Settings{[]Setting{{Name: "join-token", Value: "geheim", Secret: true, Source: "file"}, {Name: "server", Value: "x", Source: "policy", Problem: "bad"}}}
	if err := settings.Text(&b, Options{}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "geheim") || !strings.Contains(b.String(), mask) || !strings.Contains(b.String(), "[warning] bad") {
		t.Error(b.String())
	}
}
