package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"smime-agent/agent/config"
	"smime-agent/agent/enroll"
	"smime-agent/agent/helper"
	"smime-agent/agent/local"
	"smime-agent/agent/text"
	"smime-agent/platform"
)

// env is everything that run takes from outside.
type env struct {
	args           []string
	getenv         func(string) string
	stdout, stderr io.Writer
	user           func() (platform.User, error)
	stores         func(context.Context, platform.StoreOptions) ([]platform.Store, error)
	books          func(context.Context, platform.StoreOptions) ([]platform.AddressBook, error)
	programs       func(platform.MailOptions) []platform.MailProgram
	prompter       platform.Prompter
	// settings are what the administrator set, as far as this user can read it.
	settings func() config.Settings
	attach   func(ctx context.Context, address string, once bool, l local.Lending) error
	// supervise is [platform.Supervise].
	supervise func(ctx context.Context, args []string, crashed func(error, []byte)) error
	// watch is how often the stores are looked at; 0 is the default.
	watch time.Duration
	// stuckAfter is how long a store may be held; 0 is the default.
	stuckAfter time.Duration
}

// options are the command line.
type options struct {
	address, language string
	once, version     bool
	// supervise starts a helper as a child, and again after a crash.
	supervise bool
}

func parse(e env) (options, error) {
	var o options
	flags := flag.NewFlagSet("smime-helper", flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	flags.StringVar(&o.address, "address", "", "the service's local `address` (default: the system's)")
	flags.StringVar(&o.language, "language", "", "BCP 47 `tag` of the language of prompts (default: the user's)")
	flags.BoolVar(&o.once, "once", false, "end when the service ends, instead of waiting for it to come back")
	flags.BoolVar(&o.version, "version", false, "print the version")
	flags.BoolVar(&o.supervise, "supervise", false, "run the helper as a child and start it again if it crashes, where the system does not")
	if err := flags.Parse(e.args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return o, nil
}

// run lends the session until ctx ends. A second helper of the same user ends
// at once and without complaint: the first one serves.
func run(ctx context.Context, e env) error {
	o, err := parse(e)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Fprintf(e.stdout, "smime-helper %s\n", version)
		return err
	}
	paths, err := platform.CurrentUserPaths(e.getenv)
	if err != nil {
		return err
	}
	if o.supervise {
		return superviseChild(ctx, e, paths)
	}
	log, closeLog := openLog(paths.State, e.stderr)
	defer closeLog()
	if err := platform.Lacking(); err != nil {
		log.Warn("build is incomplete", "error", err.Error())
	}
	unlock, err := lockSession(paths, log)
	if errors.Is(err, platform.ErrExists) {
		log.Debug("another helper serves this user")
		return nil
	}
	if err != nil {
		return err
	}
	err = serve(ctx, e, o, log)
	if err != nil {
		log.Error("helper ended", "error", err.Error())
	}
	return errors.Join(err, unlock())
}

// superviseChild keeps a helper running. What a crashed one wrote last lies beside
// its log.
func superviseChild(ctx context.Context, e env, paths platform.UserPaths) error {
	isFlag := func(arg string) bool { return strings.TrimLeft(arg, "-") == "supervise" }
	return e.supervise(ctx, slices.DeleteFunc(slices.Clone(e.args), isFlag), func(err error, lastWords []byte) {
		text := fmt.Appendf(nil, "%s smime-helper %s: %v\n%s", time.Now().UTC().Format(time.RFC3339), version, err, lastWords)
		if platform.PrivateDir(paths.State) == nil {
			_ = platform.WriteFile(filepath.Join(paths.State, "helper-crash.log"), text, 0o600) // nobody is there to be told
		}
	})
}

// lockSession locks in the runtime folder, which is this machine's; a home folder
// may be shared by several, and is the way out where a session came up without
// its runtime folder (su, cron).
func lockSession(paths platform.UserPaths, log *slog.Logger) (func() error, error) {
	dir := paths.Runtime
	if err := platform.PrivateDir(dir); err != nil {
		log.Warn("no runtime folder", "error", err.Error())
		dir = paths.State
		if err := platform.PrivateDir(dir); err != nil {
			return nil, err
		}
	}
	return platform.Lock(filepath.Join(dir, "helper.lock"))
}

func serve(ctx context.Context, e env, o options, log *slog.Logger) error {
	user, err := e.user()
	if err != nil {
		log.Warn("user not known", "error", err.Error()) // the service asks the kernel, not us
	}
	settings := e.settings()
	if user.Locale = cmp.Or(o.language, user.Locale); o.address == "" {
		o.address = settings.Address
	}
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default: // one that was not heard yet says as much
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := newSession(e, user.Locale, log)
	s.Stuck = func(store string) { cancel(stuckError{store}) }
	thrift := platform.NewThrift()
	go thrift.Run(ctx)
	go s.Watch(ctx, e.watch, tell)
	go s.WatchPrograms(ctx, 0, tell)
	log.Info("helper started", "version", version, "user", user.ID, "locale", user.Locale)
	defer log.Info("helper stopped")
	err = e.attach(ctx, o.address, o.once, local.Lending{
		Hello:   local.Hello{Version: "smime-helper/" + version, Locale: user.Locale, UPN: user.UPN},
		Session: logged{s, log, thrift},
		Changed: changed,
		Report:  func(err error) { report(log, err) },
	})
	if stuck, ok := errors.AsType[stuckError](context.Cause(ctx)); ok {
		return stuck // whoever watches over the helper starts another
	}
	return err
}

// stuckError ends a helper whose store does not come back.
type stuckError struct{ store string }

func (e stuckError) Error() string {
	return fmt.Sprintf("a call into store %s does not return; only a new helper can use it again", e.store)
}

// newSession puts the session together. Stores are opened anew for each task,
// so no PIN outlives one.
func newSession(e env, locale string, log *slog.Logger) *helper.Session {
	s := &helper.Session{Prompter: e.prompter, StuckAfter: e.stuckAfter, Words: words{text.For(locale)}, Now: time.Now, Log: log}
	s.Stores = func(ctx context.Context, modules []platform.Module) ([]platform.Store, error) {
		return e.stores(ctx, platform.StoreOptions{Modules: modules, PIN: s.PIN})
	}
	s.AddressBooks = func(ctx context.Context) ([]platform.AddressBook, error) {
		return e.books(ctx, platform.StoreOptions{PIN: s.PIN})
	}
	if e.programs != nil {
		s.MailPrograms = func() []platform.MailProgram { return e.programs(platform.MailOptions{}) }
	}
	return s
}

func report(log *slog.Logger, err error) {
	if err == nil {
		log.Info("session lent to the service")
		return
	}
	log.Warn("service not reached", "error", err.Error())
}

// words says in the user's language what the session shows.
type words struct{ text *text.Text }

func (w words) Question(q enroll.Question) platform.Question {
	d := w.text.Prompt(text.Question{
		Organization: q.Organization, Contact: q.Contact, Mailbox: q.Mailbox, Reason: string(q.Reason),
		Note: q.Note, PostponementsLeft: q.PostponementsLeft, ProgramsAsk: q.ProgramsAsk,
	})
	return platform.Question{Title: d.Title, Text: d.Body, Yes: d.Yes, Later: d.Later, No: d.No}
}

func (w words) Notice(n enroll.Notice) platform.Notice {
	m := w.text.Notice(text.Notice{Code: string(n.Code), Organization: n.Organization, Contact: n.Contact, Mailbox: n.Mailbox, ProgramsAsk: n.ProgramsAsk})
	return platform.Notice{Title: m.Title, Text: m.Body}
}

func (w words) PIN(store string, retry bool) platform.Entry {
	e := w.text.Secret(store, retry)
	return platform.Entry{Title: e.Title, Text: e.Body, OK: e.OK, Cancel: e.Cancel, Secret: true}
}

func (w words) Code(q enroll.CodeQuestion) platform.Entry {
	e := w.text.Code(text.CodeQuestion{Organization: q.Organization, Contact: q.Contact, Mailbox: q.Mailbox, Wrong: q.Wrong})
	return platform.Entry{Title: e.Title, Text: e.Body, OK: e.OK, Cancel: e.Cancel}
}

func (w words) Hint(code enroll.Code, _ string) string {
	x := w.text.Explain(string(code), text.About{})
	if x.Cure == "" {
		return x.Text
	}
	return x.Text + " " + x.Cure
}
