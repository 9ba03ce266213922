package macos

import (
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDistribution: Installer must not want Rosetta on Apple's own processors,
// install nowhere but on the volume that runs, and know the package by the name
// that build.sh gives it.
func TestDistribution(t *testing.T) {
	var d struct {
		Options struct {
			Architectures string `xml:"hostArchitectures,attr"`
		} `xml:"options"`
		Domains struct {
			Anywhere string `xml:"enable_anywhere,attr"`
			Home     string `xml:"enable_currentUserHome,attr"`
			System   string `xml:"enable_localSystem,attr"`
		} `xml:"domains"`
		Oldest struct {
			Min string `xml:"min,attr"`
		} `xml:"volume-check>allowed-os-versions>os-version"`
		Line struct {
			Choice string `xml:"choice,attr"`
		} `xml:"choices-outline>line"`
		Choice struct {
			ID  string `xml:"id,attr"`
			Ref struct {
				ID string `xml:"id,attr"`
			} `xml:"pkg-ref"`
		} `xml:"choice"`
		Package struct {
			ID      string `xml:"id,attr"`
			Version string `xml:"version,attr"`
			File    string `xml:",chardata"`
		} `xml:"pkg-ref"`
	}
	data, build := read(t, "distribution.xml"), read(t, "build.sh")
	if err := xml.Unmarshal([]byte(data), &d); err != nil {
		t.Fatal(err)
	}
	if d.Options.Architectures != "arm64,x86_64" || d.Domains.Anywhere != "false" || d.Domains.Home != "false" || d.Domains.System != "true" {
		t.Errorf("%+v", d)
	}
	if d.Line.Choice != d.Choice.ID || d.Choice.Ref.ID != d.Package.ID || !strings.Contains(build, "--identifier "+d.Package.ID+" ") {
		t.Errorf("the names differ: %+v", d)
	}
	if !strings.Contains(build, `"$out/`+d.Package.File+`"`) || d.Package.Version != "VERSION" {
		t.Errorf("build.sh knows another package than %+v", d.Package)
	}
	linked := regexp.MustCompile(`-mmacosx-version-min=(\S+)`).FindStringSubmatch(read(t, "../../platform/internal/security/keychain_darwin.go"))
	if linked == nil || linked[1] != d.Oldest.Min {
		t.Errorf("it installs from macOS %s on, and is linked for %q", d.Oldest.Min, linked)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// launchd is what a test tells the programs of a Mac to answer, and what the
// script then asked of launchctl.
type launchd struct {
	// draining is how often the service is still there when it is looked for.
	draining int
	// refusals is how often bootstrap fails; kicks says that kickstart finds the job.
	refusals int
	kicks    bool
	disabled string
}

// play runs a script with programs of the test in place of the Mac's, which are
// called by their whole paths: the paths are replaced, and nothing else.
func (l launchd) play(t *testing.T, script, volume string) (calls, said string, err error) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "calls")
	for name, body := range map[string]string{
		"ps":    "printf '%s\\n' '  0 /System/Library/CoreServices/loginwindow.app/Contents/MacOS/loginwindow' '248 /System/Library/CoreServices/loginwindow.app/Contents/MacOS/loginwindow' '501 /System/Library/CoreServices/loginwindow.app/Contents/MacOS/loginwindow' '502 /System/Library/CoreServices/loginwindow.app/Contents/MacOS/loginwindow' '503 /usr/libexec/loginwindowhelper'",
		"sleep": "exit 0",
		"launchctl": fmt.Sprintf(`echo "$@" >> %[1]s
count() { grep -c "^$1" %[1]s; }
case "$1 $2" in
"print system/org.smime-agent") [ $(count print\ ) -le %[2]d ] ;;
"print-disabled system") printf '%%s\n' %[3]s ;;
"bootstrap system") [ $(count 'bootstrap system') -gt %[4]d ] ;;
"kickstart -k") %[5]v ;;
esac`, log, l.draining, "'"+l.disabled+"'", l.refusals, l.kicks),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	source := read(t, filepath.Join("scripts", script))
	for _, name := range []string{"/bin/ps", "/bin/sleep", "/bin/launchctl"} {
		source = strings.ReplaceAll(source, name, filepath.Join(dir, filepath.Base(name)))
	}
	path := filepath.Join(dir, script)
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "sh", path, "/package.pkg", "/", volume, "/").CombinedOutput()
	asked, _ := os.ReadFile(log) // none was asked
	return string(asked), string(out), err
}

const (
	daemonUp = "bootstrap system /Library/LaunchDaemons/org.smime-agent.plist\n"
	helperUp = "bootstrap gui/%d /Library/LaunchAgents/org.smime-agent.helper.plist\n"
)

// TestPreinstall: it ends the helpers of people and of nobody else, then the
// service, and waits until that is gone, but not for ever.
func TestPreinstall(t *testing.T) {
	calls, said, err := launchd{draining: 3}.play(t, "preinstall", "/")
	want := "bootout gui/501/org.smime-agent.helper\nbootout gui/502/org.smime-agent.helper\nbootout system/org.smime-agent\n" +
		strings.Repeat("print system/org.smime-agent\n", 4)
	if calls != want || err != nil {
		t.Errorf("%v, %s\n%s", err, said, calls)
	}
	if calls, _, err := (launchd{draining: 1000}).play(t, "preinstall", "/"); err != nil || strings.Count(calls, "print ") != 40 {
		t.Errorf("a service that does not end: %v\n%s", err, calls)
	}
	if calls, _, err := (launchd{}).play(t, "preinstall", "/Volumes/Other"); err != nil || calls != "" {
		t.Errorf("another volume: %v\n%s", err, calls)
	}
}

// TestPostinstall: it starts what is not there and starts anew what is, tries
// again while launchd is not ready, tells when it gives up, and leaves a service
// alone that an administrator switched off.
func TestPostinstall(t *testing.T) {
	helpers := fmt.Sprintf(helperUp, 501) + fmt.Sprintf(helperUp, 502)
	const off = `"org.smime-agent" => `
	for name, c := range map[string]struct {
		with launchd
		want string
		says string
		ok   bool
	}{
		"fresh":         {launchd{}, daemonUp + helpers, "", true},
		"not ready yet": {launchd{refusals: 2}, strings.Repeat(daemonUp+"kickstart -k system/org.smime-agent\n", 2) + daemonUp + helpers, "", true},
		"there already": {launchd{refusals: 99, kicks: true}, daemonUp + "kickstart -k system/org.smime-agent\n" + helpers, "", true},
		"never":         {launchd{refusals: 99}, strings.Repeat(daemonUp+"kickstart -k system/org.smime-agent\n", 15), "does not start", false},
		"switched off":  {launchd{disabled: off + "disabled"}, helpers, "switched off", true},
		"off, older":    {launchd{disabled: off + "true"}, helpers, "switched off", true},
		"on":            {launchd{disabled: off + "enabled"}, daemonUp + helpers, "", true},
		"another's":     {launchd{disabled: `"org.smime-agent.helper" => disabled`}, daemonUp + helpers, "", true},
	} {
		calls, said, err := c.with.play(t, "postinstall", "/")
		if calls != "print-disabled system\n"+c.want || !strings.Contains(said, c.says) || c.says == "" && said != "" || (err == nil) != c.ok {
			t.Errorf("%s: %v, %q\n%s", name, err, said, calls)
		}
	}
	if calls, _, err := (launchd{}).play(t, "postinstall", "/Volumes/Other"); err != nil || calls != "" {
		t.Errorf("another volume: %v\n%s", err, calls)
	}
}

// TestCrossDarwin: without an SDK `make cross-darwin` says what it wants; with one,
// it vets and links both architectures, and ends badly if one of them does.
func TestCrossDarwin(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("SKIP: there is no make")
	}
	dir := t.TempDir()
	compiler := filepath.Join(dir, "go")
	script := "#!/bin/sh\necho \"$GOOS/$GOARCH cgo $CGO_ENABLED: $1\"\n[ \"$GOARCH $1\" != \"$BROKEN\" ]\n"
	if err := os.WriteFile(compiler, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	sdk := filepath.Join(dir, "MacOSX.sdk")
	if err := os.MkdirAll(filepath.Join(sdk, "System/Library/Frameworks/Security.framework"), 0o700); err != nil {
		t.Fatal(err)
	}
	cross := func(sdk, broken string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "make", "-C", "../..", "cross-darwin", "DARWIN_SDK="+sdk, "GO="+compiler)
		cmd.Env = append(os.Environ(), "BROKEN="+broken)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, none := range []string{"", dir} {
		if said, err := cross(none, ""); err == nil || !strings.Contains(said, "Say where the SDK is: make cross-darwin DARWIN_SDK=") {
			t.Errorf("SDK %q: %v\n%s", none, err, said)
		}
	}
	said, err := cross(sdk, "")
	for _, want := range []string{"darwin/arm64 cgo 1: vet", "darwin/arm64 cgo 1: build", "darwin/amd64 cgo 1: vet", "darwin/amd64 cgo 1: build"} {
		if err != nil || !strings.Contains(said, want) {
			t.Errorf("%v, without %q:\n%s", err, want, said)
		}
	}
	for _, broken := range []string{"arm64 vet", "arm64 build", "amd64 vet"} {
		if said, err := cross(sdk, broken); err == nil {
			t.Errorf("%s failed, and nobody heard of it:\n%s", broken, said)
		}
	}
}
