// Command server-stub is the reference server for central management: small,
// but true. A company can run a pilot with it, and another implementation of
// proto/control/v1 can take its place.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], env{out: os.Stdout, err: os.Stderr, now: time.Now})
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", self(), err)
		stop()
		os.Exit(exitCode(err))
	}
}

// env is what a command has of the outside.
type env struct {
	out io.Writer
	err io.Writer
	now func() time.Time
}

// run is the whole command; tests call it too.
func run(ctx context.Context, args []string, e env) error {
	a := &app{env: e}
	root := &cobra.Command{
		Use: self(), Short: "Reference server for the S/MIME agent's central management",
		SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
	}
	root.SetArgs(args)
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVar(&a.dir, "dir", ".", "data directory of the server")
	flags.StringVar(&a.server, "server", "", "host:port of the server (default: from the data directory)")
	flags.StringVar(&a.adminCert, "admin-cert", "", "PEM file with the administrator's certificate and key (default: from the data directory)")
	flags.StringVar(&a.caFile, "ca", "", "PEM file with the server's transport CA (default: from the data directory)")
	root.AddCommand(
		a.initCommand(), a.serveCommand(), a.adminCommand(), a.tokenCommand(), a.devicesCommand(), a.deviceCommand(),
		a.requestsCommand(), a.requestCommand(), a.ledgerCommand(), a.coverageCommand(), a.revokeCommand(), a.policyCommand(),
		a.leaversCommand(), a.renewCommand(), a.proveCommand(), a.directoryCommand(), a.exportCommand(), a.rootListCommand(), a.exchangeCommand(), a.backupCommand(), a.restoreCommand(), a.storeCommand(), a.versionCommand(),
		a.manCommand(root),
	)
	refuseUnknown(root)
	understood := false
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	called, err := root.ExecuteContextC(ctx)
	// Cobra looks for required flags only after that.
	if err != nil && (!understood || strings.HasPrefix(err.Error(), "required flag(s)")) {
		return cure(plain(err), fmt.Sprintf("See %q.", called.CommandPath()+" --help"))
	}
	return explain(err)
}

// refuseUnknown has commands that only hold others refuse what they do not know:
// cobra shows the help then, as if all were well.
func refuseUnknown(c *cobra.Command) {
	for _, sub := range c.Commands() {
		refuseUnknown(sub)
	}
	if !c.Runnable() {
		c.Args = cobra.NoArgs
		c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
}

// plain leaves out of an error of the command line what only programmers know.
func plain(err error) error {
	text, _, _ := strings.Cut(err.Error(), ": strconv.")
	return errors.New(strings.ReplaceAll(text, "arg(s)", "argument(s)"))
}

// app holds the flags that all commands share.
type app struct {
	env
	dir, server, adminCert, caFile string
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			said := "(unknown)"
			if info, ok := debug.ReadBuildInfo(); ok {
				said = cmp.Or(version, info.Main.Version) + ", " + info.GoVersion
			}
			_, err := fmt.Fprintln(a.out, self(), said)
			return err
		},
	}
}

// cured is an error with what to do about it.
type cured struct {
	err  error
	cure string
}

func (c *cured) Error() string { return c.err.Error() + "\n" + c.cure }

func (c *cured) Unwrap() error { return c.err }

func cure(err error, text string) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*cured](err); ok {
		return err
	}
	return &cured{err: err, cure: text}
}
