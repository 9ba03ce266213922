package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smime-agent/agent/config"
	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

const id = enroll.ID("smime-01900000-0000-7000-8000-000000000001")

// fixture is a user with one store and no service.
type fixture struct {
	env            env
	home           string
	store          *platformtest.Store
	person         *platformtest.Prompter
	stdout, stderr bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{home: t.TempDir(), store: platformtest.NewStore("mem"), person: &platformtest.Prompter{}}
	vars := map[string]string{"HOME": f.home, "XDG_STATE_HOME": filepath.Join(f.home, "state"), "XDG_RUNTIME_DIR": filepath.Join(f.home, "run")}
	f.env = env{
		getenv: func(name string) string { return vars[name] }, stdout: &f.stdout, stderr: &f.stderr,
		user: func() (platform.User, error) {
			return platform.User{ID: "uid:1000", Locale: "zh-CN", UPN: "mei@corp.example"}, nil
		},
		stores: func(context.Context, platform.StoreOptions) ([]platform.Store, error) {
			return []platform.Store{f.store}, nil
		},
		prompter: f.person,
		settings: func() config.Settings {
			return config.Settings{Address: "/settings"}
		},
	}
	return f
}

// lines reads the log, each line as JSON.
func (f *fixture) lines(t *testing.T) []map[string]any {
	t.Helper()
	path := filepath.Join(f.home, "state", "smime-agent", "helper.log")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		t.Errorf("log has mode %v", info.Mode())
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []map[string]any
	for s := bufio.NewScanner(file); s.Scan(); {
		var line map[string]any
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", s.Text(), err)
		}
		all = append(all, line)
	}
	return all
}

func (f *fixture) logged(t *testing.T, message string) map[string]any {
	t.Helper()
	for _, line := range f.lines(t) {
		if line["msg"] == message {
			return line
		}
	}
	t.Errorf("no line %q in the log", message)
	return nil
}

func TestVersion(t *testing.T) {
	f := newFixture(t)
	f.env.args = []string{"--version"}
	if err := run(t.Context(), f.env); err != nil || f.stdout.String() != "smime-helper unknown\n" {
		t.Errorf("%q, %v", f.stdout.String(), err)
	}
	if entries, err := os.ReadDir(f.home); err != nil || len(entries) != 0 {
		t.Errorf("it left %v", entries)
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"--nonsense"}, {"extra"}} {
		f := newFixture(t)
		f.env.args = args
		if err := run(t.Context(), f.env); err == nil {
			t.Errorf("%v: accepted", args)
		}
	}
}

func TestLending(t *testing.T) {
	f := newFixture(t)
	f.env.args = []string{"--address", "/there", "--language", "en", "--once"}
	f.env.attach = func(ctx context.Context, address string, once bool, l local.Lending) error {
		if address != "/there" || !once || l.Hello != (local.Hello{Version: "smime-helper/unknown", Locale: "en", UPN: "mei@corp.example"}) {
			t.Errorf("attach %q, %t, %+v", address, once, l.Hello)
		}
		l.Report(nil)
		_, err := l.Session.MakeRequest(ctx, enroll.RequestWanted{
			ID: id, Store: "mem", Keys: []string{"p-256"}, Mailboxes: []string{"mei@corp.example"}, Sign: true, Encrypt: true,
		})
		if err != nil {
			t.Error(err)
		}
		err = l.Session.Install(ctx, enroll.InstallWanted{ID: id, Store: "elsewhere", Chain: [][]byte{{1}}})
		if e := enroll.AsError(err); e.Code != enroll.CodeStoreMissing || !strings.Contains(e.Hint, " ") {
			t.Errorf("%+v", e)
		}
		f.person.Answer(platform.AnswerYes)
		if v, err := l.Session.Ask(ctx, enroll.Question{ID: id, Organization: "Corp", Mailbox: "mei@corp.example"}); err != nil || v != enroll.Approve {
			t.Errorf("%s, %v", v, err)
		}
		if err := l.Session.Notify(ctx, enroll.Notice{Code: enroll.NoticeEnrolled, Mailbox: "mei@corp.example"}); err != nil {
			t.Error(err)
		}
		return errors.New("the service went")
	}
	if err := run(t.Context(), f.env); err == nil || err.Error() != "the service went" {
		t.Errorf("ended with %v", err)
	}
	if q := f.person.Questions(); len(q) != 1 || !strings.Contains(q[0].Text, "mei@corp.example") || q[0].Yes == "" {
		t.Errorf("asked %+v", q)
	}
	if n := f.person.Notices(); len(n) != 1 || n[0].Title == "" {
		t.Errorf("told %+v", n)
	}
	f.logged(t, "session lent to the service")
	if line := f.logged(t, "task done"); line["enrollment"] != string(id) {
		t.Errorf("%v", line)
	}
	if line := f.logged(t, "task failed"); line["code"] != "store-missing" || line["kind"] != "waiting" {
		t.Errorf("%v", line)
	}
	f.logged(t, "helper stopped")
}

func TestOneHelperPerUser(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{}, 2)
	f.env.attach = func(ctx context.Context, _ string, _ bool, _ local.Lending) error {
		served <- struct{}{}
		<-ctx.Done()
		return nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := run(ctx, f.env); err != nil {
			t.Errorf("first: %v", err)
		}
	})
	<-served
	if err := run(ctx, f.env); err != nil {
		t.Errorf("second: %v", err)
	}
	if len(served) != 0 {
		t.Error("the second one served too")
	}
	cancel()
	wg.Wait()
	ctx, cancel = context.WithCancel(t.Context())
	wg.Go(func() {
		if err := run(ctx, f.env); err != nil {
			t.Errorf("third: %v", err)
		}
	})
	<-served // the lock was given back
	cancel()
	wg.Wait()
}

func TestStoreChangesAreTold(t *testing.T) {
	f := newFixture(t)
	f.env.watch = 10 * time.Millisecond
	f.env.attach = func(ctx context.Context, _ string, _ bool, l local.Lending) error {
		time.Sleep(50 * time.Millisecond)
		if len(l.Changed) != 0 {
			t.Error("told of a change that was none")
		}
		if _, err := f.store.Create(ctx, platform.KeyID(id), platform.KeySpec{Algorithm: platform.P256}); err != nil {
			t.Error(err)
		}
		select {
		case <-l.Changed:
		case <-time.After(time.Minute):
			t.Error("not told")
		}
		return nil
	}
	if err := run(t.Context(), f.env); err != nil {
		t.Error(err)
	}
}

// TestPINStaysOut plants a store that wants a PIN and looks for it in the log.
func TestPINStaysOut(t *testing.T) {
	const pin = "hunter-4711"
	f := newFixture(t)
	f.person.Type(pin)
	var ask atomic.Pointer[platform.PINFunc]
	f.store.Fail = func(op string) error {
		if op != "create:before" {
			return nil
		}
		got, err := (*ask.Load())(context.Background(), "mem", false)
		if err != nil || got != pin {
			t.Errorf("PIN %q, %v", got, err)
		}
		return platform.ErrLocked
	}
	f.env.stores = func(_ context.Context, o platform.StoreOptions) ([]platform.Store, error) {
		ask.Store(&o.PIN)
		return []platform.Store{f.store}, nil
	}
	f.env.attach = func(ctx context.Context, _ string, _ bool, l local.Lending) error {
		_, err := l.Session.MakeRequest(ctx, enroll.RequestWanted{ID: id, Store: "mem", Keys: []string{"p-256"}, Mailboxes: []string{"m@corp.example"}, Sign: true})
		if enroll.AsError(err).Code != enroll.CodeStoreLocked || strings.Contains(err.Error(), pin) {
			t.Errorf("%v", err)
		}
		return nil
	}
	if err := run(t.Context(), f.env); err != nil {
		t.Error(err)
	}
	f.logged(t, "task failed")
	err := filepath.WalkDir(f.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(pin)) {
			t.Errorf("the PIN is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWithoutALogFile(t *testing.T) {
	f := newFixture(t)
	if err := os.WriteFile(filepath.Join(f.home, "state"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.env.attach = func(context.Context, string, bool, local.Lending) error { return nil }
	if err := run(t.Context(), f.env); err != nil {
		t.Error(err)
	}
	if !strings.Contains(f.stderr.String(), "helper started") {
		t.Errorf("stderr: %s", f.stderr.String())
	}
}

func TestWithoutARuntimeFolder(t *testing.T) {
	f := newFixture(t)
	if err := os.WriteFile(filepath.Join(f.home, "run"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	served := false
	f.env.attach = func(context.Context, string, bool, local.Lending) error {
		served = true
		return nil
	}
	if err := run(t.Context(), f.env); err != nil || !served {
		t.Errorf("served: %t, %v", served, err)
	}
	f.logged(t, "no runtime folder")
}

func TestSupervise(t *testing.T) {
	f := newFixture(t)
	f.env.args = []string{"--supervise", "--language", "en"}
	f.env.supervise = func(_ context.Context, args []string, crashed func(error, []byte)) error {
		if len(args) != 2 || args[0] != "--language" {
			t.Errorf("the child gets %q", args)
		}
		crashed(errors.New("exit status 2"), []byte("panic: broken"))
		return nil
	}
	if err := run(t.Context(), f.env); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(f.home, "state", "smime-agent", "helper-crash.log"))
	if err != nil || !strings.Contains(string(kept), "panic: broken") {
		t.Errorf("%q, %v", kept, err)
	}
}

// TestManifest: without it Windows has no task dialogs for the helper.
func TestManifest(t *testing.T) {
	for _, name := range []string{"rsrc_windows_amd64.syso", "rsrc_windows_arm64.syso"} {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Microsoft.Windows.Common-Controls", "permonitorv2", `level="asInvoker"`} {
			if !bytes.Contains(raw, []byte(want)) {
				t.Errorf("%s lacks %s", name, want)
			}
		}
	}
}

// neverStore does not return from the listing of its keys.
type neverStore struct {
	platform.Store
	never chan struct{}
}

func (s neverStore) Keys(context.Context) ([]platform.KeyInfo, error) {
	<-s.never
	return nil, nil
}

// A helper whose store does not come back ends with an error, so that whoever
// watches over it starts another, and its lock is free for that one.
func TestAHelperWhoseStoreHangsEnds(t *testing.T) {
	f := newFixture(t)
	store := neverStore{f.store, make(chan struct{})}
	defer close(store.never)
	f.env.stuckAfter = 20 * time.Millisecond
	f.env.stores = func(context.Context, platform.StoreOptions) ([]platform.Store, error) {
		return []platform.Store{store}, nil
	}
	f.env.attach = func(ctx context.Context, _ string, _ bool, l local.Lending) error {
		go func() { _, _ = l.Session.Inventory(ctx, nil) }()
		<-ctx.Done()
		return nil
	}
	if _, ok := errors.AsType[stuckError](run(t.Context(), f.env)); !ok {
		t.Error("it does not say why it ended")
	}
	f.logged(t, "store hangs")
	f.env.attach = func(context.Context, string, bool, local.Lending) error { return nil }
	f.env.stores = func(context.Context, platform.StoreOptions) ([]platform.Store, error) { return nil, nil }
	if err := run(t.Context(), f.env); err != nil {
		t.Errorf("the next one: %v", err)
	}
}
