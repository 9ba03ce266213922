//go:build linux || darwin

package platform

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestLaunchctl: what launchd says of a job, by a program in launchctl's place
// that answers only to what everybody may ask.
func TestLaunchctl(t *testing.T) {
	const name = "org.smime-agent"
	for said, c := range map[string]struct {
		installed bool
		want      string
	}{
		`printf 'system/org.smime-agent = {\n\tactive count = 3\n\tstate = running\n\tpid = 7\n}\n'`:                                     {true, "running"},
		`printf 'system/org.smime-agent = {\n\tstate = spawn scheduled\n\tendpoints = {\n\t\tstate = running\n\t}\n}\n'`:                 {true, "stopped"},
		`printf 'system/org.smime-agent = {\n\tstate = not running\n}\n'`:                                                                {true, "stopped"},
		`echo 'Bad request.\nCould not find service "org.smime-agent" in domain for system' >&2; exit 113`:                               {true, "stopped"},
		`echo 'Bad request.\nCould not find service "org.smime-agent" in domain for system, state = running is not said here'; exit 113`: {false, "not installed"},
	} {
		l := launchctl{path: filepath.Join(t.TempDir(), "launchctl"), jobs: t.TempDir()}
		script := "#!/bin/sh\n[ \"$*\" = 'print system/" + name + "' ] || exit 64\n" + said + "\n"
		if err := os.WriteFile(l.path, []byte(script), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
		if c.installed {
			if err := os.WriteFile(filepath.Join(l.jobs, name+".plist"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := l.state(name); got != c.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", said, got, err, c.want)
		}
	}
	if got, err := (launchctl{path: filepath.Join(t.TempDir(), "launchctl")}).state(name); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no launchctl: %q, %v", got, err)
	}
}
