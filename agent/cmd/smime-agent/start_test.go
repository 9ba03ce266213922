package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/service"
	"smime-agent/platform"
)

// TestWhyTheServiceCannotStart: two lines in the person's language, never the
// bare name of a text.
func TestWhyTheServiceCannotStart(t *testing.T) {
	for _, trouble := range []service.Trouble{
		service.RecordInUse, service.RecordNewer, service.AddressTaken, service.NotOurs, service.NotPermitted, service.Lacking, service.CannotUse,
	} {
		for _, lang := range []string{"en", "zh_CN.UTF-8"} {
			var said bytes.Buffer
			err := run(t.Context(), env{
				Args: []string{"service", "run"}, Stdout: &said, Stderr: &said, Now: time.Now,
				Getenv: func(name string) string { return map[string]string{"LANG": lang}[name] },
				Width:  func() (int, bool) { return 80, false },
				User:   func() (platform.User, error) { return platform.User{}, nil },
				Serve: func(context.Context, ServeOptions) error {
					return &service.StartError{Trouble: trouble, Path: "/there", Err: errors.New("cause")}
				},
			})
			if exitCode(err) != exitFailed || strings.Contains(said.String(), "cli.") || !strings.Contains(said.String(), "/there") ||
				strings.Count(said.String(), "\n") != 2 {
				t.Errorf("%s in %s: exit %d, %q", trouble, lang, exitCode(err), said.String())
			}
		}
	}
}
