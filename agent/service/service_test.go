package service

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/config"
	"smime-agent/agent/enroll"
	"smime-agent/agent/helper"
	"smime-agent/agent/local"
	"smime-agent/agent/status"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/stub"
)

// bench is a whole installation in one process: the reference server, the
// service, and a helper that lends its session over the real socket.
type bench struct {
	t        *testing.T
	dir      string
	server   *stub.Server
	store    *platformtest.Store
	prompter *platformtest.Prompter
	client   *local.Client
	stop     context.CancelFunc
	ended    chan error
	// handover is as in [Options].
	handover func(func(platform.Handover) error) error
}

const policyYAML = `organization: {name: "Example GmbH", country: "DE", identifier: "NTRDE-DER3306.HRB12345"}
contact: "helpdesk@example.com"
approval: auto
rules:
  - departments: ["*"]
    profiles: [employee-sign]
    consent: CONSENT
    stores: [memory]
    renewal: {before: 60d, rotation: new-key}
`

func newBench(t *testing.T, consent string) *bench {
	t.Helper()
	b, ctx := prepareBench(t, consent)
	b.writeSettings()
	b.start(ctx)
	return b
}

// prepareBench starts central management only.
func prepareBench(t *testing.T, consent string) (*bench, context.Context) {
	t.Helper()
	user, err := platform.CurrentUser()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b := &bench{t: t, dir: t.TempDir(), stop: cancel, ended: make(chan error, 1),
		store: platformtest.NewStore("memory"), prompter: &platformtest.Prompter{}}
	b.server, err = stub.Start(ctx, stub.Options{
		PolicyYAML: strings.ReplaceAll(policyYAML, "CONSENT", consent),
		PeopleCSV:  "account,mailbox,given_name,surname,display_name,department\n" + user.Account + ",alice@example.com,Alice,Example,Alice Example,Sales\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.server.Close() })
	return b, ctx
}

func (b *bench) start(ctx context.Context) {
	b.t.Helper()
	go func() {
		b.ended <- Run(ctx, Options{Sources: b.sources(), Version: "test", Handover: b.handover})
	}()
	b.t.Cleanup(func() {
		b.stop()
		if err := <-b.ended; err != nil {
			b.t.Error("service ended:", err)
		}
	})
	go b.helper(ctx)
	for {
		c, err := local.Dial(ctx, b.address())
		if err == nil {
			b.client = c
			b.t.Cleanup(func() { _ = c.Close() })
			return
		}
		select {
		case err := <-b.ended:
			b.ended <- nil
			b.t.Fatal("service ended: ", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (b *bench) helper(ctx context.Context) {
	s := &helper.Session{
		Prompter: b.prompter, Words: wordless{}, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Stores: func(context.Context, []platform.Module) ([]platform.Store, error) {
			return []platform.Store{b.store}, nil
		},
	}
	local.Dialer{Address: b.address()}.AttachForever(ctx, local.Lending{
		Hello: local.Hello{Version: "smime-helper/test", Locale: "en"}, Session: s,
	})
}

// await waits until the report says what is wanted.
func (b *bench) await(what string, want func(status.Report) bool) status.Report {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	var last status.Report
	err := b.client.Watch(ctx, func(r status.Report) error {
		if last = r; want(r) {
			cancel()
		}
		return nil
	})
	if !want(last) {
		raw, _ := json.MarshalIndent(last, "", " ")
		b.t.Fatalf("%s did not come: %v\n%s\n%s", what, err, raw, b.logs())
	}
	return last
}

func inState(want enroll.State) func(status.Report) bool {
	return func(r status.Report) bool {
		for _, c := range r.Credentials {
			if c.State == want {
				return true
			}
		}
		return false
	}
}

func TestFromNothingToProved(t *testing.T) {
	b := newBench(t, "silent")
	r := b.await("an active credential", inState(enroll.Active))
	c := r.Credentials[0]
	if c.Mailbox != "alice@example.com" || !c.Proof.OK() || c.Protection != "software" {
		t.Errorf("credential = %+v", c)
	}
	chain, err := b.store.Find(t.Context(), platform.KeyID(c.ID))
	if err != nil || len(chain) < 2 || chain[0].SerialNumber.Text(16) != c.Serial {
		t.Errorf("store has %d certificates (%v), report serial %s", len(chain), err, c.Serial)
	}
}

func TestAskedOnce(t *testing.T) {
	b := newBench(t, "ask")
	b.prompter.Answer(platform.AnswerYes)
	b.await("an active credential", inState(enroll.Active))
	if n := len(b.prompter.Questions()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestRenewalKeepsTheOldKey(t *testing.T) {
	b := newBench(t, "silent")
	old := b.await("an active credential", inState(enroll.Active)).Credentials[0]
	if _, err := b.client.Renew(t.Context(), "alice@example.com"); err != nil {
		t.Fatal(err)
	}
	b.await("the old one kept", inState(enroll.Kept))
	if _, err := b.store.Open(t.Context(), platform.KeyID(old.ID)); err != nil {
		t.Error("old key:", err)
	}
}

func (b *bench) logs() string {
	raw, _ := os.ReadFile(filepath.Join(b.dir, "logs", "agent.log"))
	return string(bytes.TrimSpace(raw))
}

func (b *bench) address() string { return filepath.Join(b.dir, "run", "agent.sock") }

func (b *bench) sources() config.Sources {
	return config.Sources{File: filepath.Join(b.dir, "config.yaml")}
}

// places are settings that keep the service within the test's folder.
func (b *bench) places() string {
	return "state_dir: " + filepath.Join(b.dir, "state") + "\nlog_dir: " + filepath.Join(b.dir, "logs") + "\naddress: " + b.address() + "\n"
}

// way are settings that lead to central management.
func (b *bench) way() string {
	return "server: " + b.server.Addr + "\nserver_ca: " + filepath.Join(b.dir, "ca.pem") +
		"\njoin_token_file: " + filepath.Join(b.dir, "token") + "\n"
}

func (b *bench) write(name, content string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) writeSettings() {
	b.t.Helper()
	b.writeToken()
	b.write("ca.pem", string(b.server.CAPEM))
	b.write("config.yaml", b.way()+b.places())
}

func (b *bench) writeToken() {
	b.t.Helper()
	token, err := b.server.Token(b.t.Context(), &controlv1.CreateTokenRequest{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.write("token", token)
}

// wordless shows codes where the product shows sentences.
type wordless struct{}

func (wordless) Question(q enroll.Question) platform.Question {
	return platform.Question{Text: q.Mailbox}
}
func (wordless) Notice(n enroll.Notice) platform.Notice { return platform.Notice{Text: string(n.Code)} }
func (wordless) Code(q enroll.CodeQuestion) platform.Entry {
	return platform.Entry{Text: fmt.Sprintf("%s wrong=%t", q.Mailbox, q.Wrong)}
}
func (wordless) PIN(store string, _ bool) platform.Entry    { return platform.Entry{Text: store} }
func (wordless) Hint(code enroll.Code, store string) string { return string(code) + " " + store }
