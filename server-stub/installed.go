package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/site"
)

// calledAs is the variable by which the package's command and unit say under
// which name, and so with which account and folder, people call this program.
const calledAs = "SERVER_STUB_CALLED_AS"

func self() string { return cmp.Or(os.Getenv(calledAs), "server-stub") }

// starting is how to start the server, for whoever is not told the folder.
func starting() string {
	if name := os.Getenv(calledAs); name != "" {
		return "systemctl start " + name
	}
	return "server-stub serve"
}

// inWords is a command as the administrator would have to write it here.
func (a *app) inWords(command string) string {
	name := os.Getenv(calledAs)
	switch {
	case name == "":
		return fmt.Sprintf("server-stub %s --dir %s", command, a.dir)
	case command == "serve":
		return "systemctl enable --now " + name
	}
	return name + " " + command
}

// exitLasting is the exit code of what no restart cures (EX_CONFIG of
// sysexits.h); the unit does not start the server again after it.
const exitLasting = 78

// lastingError is one that stays until somebody does something.
type lastingError struct{ error }

func (l lastingError) Unwrap() error { return l.error }

func exitCode(err error) int {
	if _, ok := errors.AsType[lastingError](err); ok {
		return exitLasting
	}
	return 1
}

// lasting sorts out what keeps the server from starting for good, and says of an
// empty folder in one sentence that nothing is founded in it.
func (a *app) lasting(err error) error {
	entries, readErr := os.ReadDir(a.dir)
	switch {
	case is(site.ConfigFile, missing(err)) && len(entries) == 0 && (readErr == nil || errors.Is(readErr, fs.ErrNotExist)):
		return lastingError{cure(fmt.Errorf("no server is founded in %s yet", a.dir),
			"Make one there: "+a.inWords("init")+` --organization "Example GmbH" --country DE --organization-identifier NTRDE-DER3306.HRB12345 --host pki.example.com`)}
	case missing(err) != "", withheld(err), errors.Is(err, site.ErrConfig), errors.Is(err, site.ErrExposed), errors.Is(err, ca.ErrFile):
		return lastingError{err}
	}
	return err
}

// tellReady tells a service manager that wants to know, as sd_notify(3) has it.
func tellReady(ctx context.Context) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unixgram", socket)
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	_, err = conn.Write([]byte("READY=1"))
	return errors.Join(err, conn.Close())
}

// manCommand writes the manual pages; the package is built with it.
func (a *app) manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			at := a.now()
			if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
				at = time.Unix(seconds, 0).UTC() // reproducible-builds.org
			}
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: self(), Date: &at}, args[0])
		},
	}
}
