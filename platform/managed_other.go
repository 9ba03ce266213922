//go:build !windows

package platform

import "context"

// systemd and launchd run a program as it is and stop it by a signal, which has
// ended ctx.
func runManaged(ctx context.Context, _ string, run func(context.Context) error) error {
	return run(ctx)
}

func prepareService(string) error             { return nil }
func openSystemLog(string) (SystemLog, error) { return nil, ErrUnsupported }
