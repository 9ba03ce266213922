//go:build linux || darwin

package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// launchctl asks launchd(8) after a job of the system. `launchctl list`, which
// kardianos/service asks, tells root only; `print` tells everybody. Only macOS has
// the program; the file is for both systems so that the tests run on either.
type launchctl struct {
	// path is absolute: a search path could lead elsewhere.
	path string
	// jobs is the folder of the system's jobs.
	jobs string
}

// launchctlTimeout is far more than launchd needs to answer.
const launchctlTimeout = 10 * time.Second

// jobRuns finds the job's own state, which is indented once; the rest of the
// output is not looked at, since it is no API (launchctl(1)).
var jobRuns = regexp.MustCompile(`(?m)^\tstate = running$`)

func (l launchctl) state(name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), launchctlTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, l.path, "print", "system/"+name).Output()
	_, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("launchctl did not answer within %v", launchctlTimeout)
	case err == nil && jobRuns.Match(out):
		return "running", nil
	case err == nil:
		return "stopped", nil
	case !failed:
		return "", unsupported("launchctl", err)
	}
	if _, err := os.Stat(filepath.Join(l.jobs, name+".plist")); err == nil {
		return "stopped", nil
	}
	return "not installed", nil
}
