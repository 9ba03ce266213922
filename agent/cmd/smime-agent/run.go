package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/agent/service"
	"smime-agent/agent/status"
	"smime-agent/agent/text"
	"smime-agent/platform"
)

// env is all that the command line takes from outside.
type env struct {
	Args           []string
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// Width is the terminal's; ok is false if the output is no terminal.
	Width   func() (columns int, ok bool)
	Now     func() time.Time
	Version string
	// Address is the service's if the command line names none.
	Address func() string
	Dial    func(ctx context.Context, address string) (net.Conn, error)
	User    func() (platform.User, error)
	Stores  func(context.Context) ([]string, error)
	// Keys lists the keys of whoever runs this that have a certificate.
	Keys    func(context.Context) (Held, error)
	Serve   func(context.Context, ServeOptions) error
	Control func(context.Context, ControlAction) error
}

// ServeOptions is what `service run` was told.
type ServeOptions struct {
	// Address is the local API's; empty means the system's.
	Address string
	// ConfigFile is the administrator's settings file; empty means the system's.
	ConfigFile string
	// PolicyDir is the folder of managed policy; empty means the system's.
	PolicyDir string
	// StateDir is the service's folder; empty means the system's.
	StateDir string
	Version  string
	// Managed says that the service manager calls.
	Managed bool
}

// ControlAction is what is to be done to the installed service.
type ControlAction string

// The actions of `service`.
const (
	ServiceInstall   ControlAction = "install"
	ServiceUninstall ControlAction = "uninstall"
	ServiceStart     ControlAction = "start"
	ServiceStop      ControlAction = "stop"
	ServiceRestart   ControlAction = "restart"
	ServiceStatus    ControlAction = "status"
)

// The exit codes. Those of status and doctor are what monitoring expects of a
// plugin (Nagios plugin guidelines); wrong usage is EX_USAGE of sysexits(3).
const (
	exitOK          = 0
	exitFailed      = 1
	exitError       = 2
	exitNotRunning  = 3
	exitUsage       = 64
	exitInterrupted = 130
)

// exit ends the command with a code; what there is to say has been said.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[exit](err); ok {
		return e.code
	}
	return exitFailed
}

// app is one run of the command line.
type app struct {
	env
	root     *cobra.Command
	address  string
	language string
	text     *text.Text
	// started says that the command line was understood.
	started bool
	// called is the command that was meant.
	called string
}

// run does what the arguments say. What went wrong has been said on Stderr; the
// error carries the exit code.
func run(ctx context.Context, e env) error {
	a := &app{env: e, text: text.For(locale(e))}
	a.root = a.command()
	a.root.SetArgs(e.Args)
	a.root.SetOut(e.Stdout)
	a.root.SetErr(e.Stderr)
	a.root.InitDefaultCompletionCmd()
	refuseUnknown(a.root)
	called, err := a.root.ExecuteContextC(ctx)
	a.called = called.CommandPath()
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[exit](err); ok {
		return e
	}
	return a.complain(ctx, err)
}

// locale is the user's language: POSIX's order (XBD §8.2), then the system's word.
func locale(e env) string {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := e.Getenv(name); v != "" {
			return v
		}
	}
	if u, err := e.User(); err == nil {
		return u.Locale
	}
	return ""
}

// speak takes the language that --language names.
func (a *app) speak() error {
	if a.language == "" {
		return nil
	}
	t := text.For(a.language)
	if t.Tag() == text.English && !strings.HasPrefix(strings.ToLower(a.language), "en") {
		return complaint{key: "language", data: map[string]any{"Language": a.language}, code: exitUsage}
	}
	a.text = t
	return nil
}

// complaint is an error of the command line itself, by its key in the catalog.
type complaint struct {
	key  string
	data map[string]any
	code int
}

func (c complaint) Error() string { return "cli." + c.key }

// wording says which sentences belong to a refusal, and the exit code.
var wording = map[local.Reason]complaint{
	local.ReasonNotRunning: {key: "notrunning", code: exitNotRunning},
	local.ReasonImpostor:   {key: "impostor", code: exitNotRunning},
	local.ReasonDenied:     {key: "denied", code: exitFailed},
	local.ReasonNotFound:   {key: "notfound", code: exitFailed},
	local.ReasonNothing:    {key: "nothing", code: exitFailed},
	local.ReasonWrongState: {key: "wrongstate", code: exitFailed},
	local.ReasonRuled:      {key: "ruled", code: exitFailed},
	local.ReasonTooMany:    {key: "toomany", code: exitFailed},
	local.ReasonInvalid:    {key: "badargument", code: exitFailed},
	local.ReasonInternal:   {key: "internal", code: exitFailed},
}

// complain says on Stderr what is wrong and what to do, in two lines.
func (a *app) complain(ctx context.Context, err error) error {
	c, sentence := a.sort(ctx, err)
	if sentence == "" {
		data := map[string]any{"Contact": a.text.Say("who.contact", nil)}
		maps.Copy(data, c.data)
		sentence = a.text.Say("cli."+c.key+".text", data) + "\n  -> " + a.text.Say("cli."+c.key+".cure", data)
	}
	_, _ = fmt.Fprintf(a.Stderr, "smime-agent: %s\n", sentence)
	return exit{c.code, err}
}

// sort finds the sentences for an error; a sentence of the service's own comes as text.
func (a *app) sort(ctx context.Context, err error) (c complaint, sentence string) {
	if c, ok := errors.AsType[complaint](err); ok {
		return c, ""
	}
	if e, ok := errors.AsType[*service.StartError](err); ok {
		data := map[string]any{"Path": oneLine(e.Path), "Detail": oneLine(e.Err.Error())}
		return complaint{key: "start." + string(e.Trouble), data: data, code: exitFailed}, ""
	}
	if ctx.Err() != nil {
		return complaint{key: "interrupted", code: exitInterrupted}, ""
	}
	target, _ := errors.AsType[about](err)
	if e, ok := errors.AsType[*local.Error](err); ok {
		c, known := wording[e.Reason]
		switch {
		case e.Code == enroll.CodeChallengePending:
			return complaint{key: "wrongcode", code: exitFailed}, ""
		case a.text.Knows(string(e.Code)):
			x := a.text.Explain(string(e.Code), text.About{Mailbox: target.target})
			sentence := oneLine(x.Text)
			if e.Text != "" && a.text.Tag() == text.English {
				sentence += "\n  " + oneLine(e.Text) // which says more, but in no other language
			}
			return complaint{code: exitFailed}, sentence + "\n  -> " + oneLine(x.Cure)
		case e.Text != "":
			return complaint{code: exitFailed}, oneLine(e.Text)
		case !known:
			c = wording[local.ReasonInternal]
		}
		c.data = map[string]any{"Target": target.target}
		return c, ""
	}
	detail := map[string]any{"Detail": oneLine(strings.TrimSuffix(err.Error(), "."))}
	if !a.started {
		// Of an error of the command line, what only programmers know is left out.
		text, _, _ := strings.Cut(err.Error(), ": strconv.")
		detail["Detail"] = oneLine(strings.ReplaceAll(text, "arg(s)", "argument(s)"))
		detail["Command"] = a.called
		return complaint{key: "usage", data: detail, code: exitUsage}, ""
	}
	return complaint{key: "failed", data: detail, code: exitFailed}, ""
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

// oneLine keeps what came from elsewhere from driving the terminal.
func oneLine(s string) string { return status.Printable(s) }

// about tells what a failed call was about.
type about struct {
	target string
	err    error
}

func (b about) Error() string { return b.err.Error() }
func (b about) Unwrap() error { return b.err }

func (a *app) connect(ctx context.Context) (*local.Client, error) {
	return local.Dialer{Address: a.at(), Dial: a.Dial}.Connect(ctx)
}

// call connects, calls and hangs up.
func (a *app) call(ctx context.Context, do func(*local.Client) error) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	err = do(c)
	return cmp.Or(err, c.Close())
}

// options is how to write for people here.
func (a *app) options() status.Options {
	width, terminal := a.Width()
	return status.Options{
		Locale: a.text.Tag(), Width: width,
		// https://no-color.org
		Color: terminal && a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb",
	}
}

func (a *app) say(format string, args ...any) error {
	_, err := fmt.Fprintf(a.Stdout, format+"\n", args...)
	return err
}

// at is the service's address.
func (a *app) at() string {
	if a.address == "" && a.Address != nil {
		return a.Address()
	}
	return a.address
}
