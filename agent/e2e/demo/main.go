//go:build linux

// Command demo shows the product's main job on this machine: central management
// and an agent, from nothing to a certificate that is proved to work.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/agent/text"
)

func main() {
	bin := flag.String("bin", "bin", "folder of the built programs")
	keep := flag.String("dir", "", "folder to work in (default: a temporary one)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *bin, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

const mailbox = "alice@example.com"

type demo struct {
	*e2e.World
	account string
	start   time.Time
	said    int
}

func run(ctx context.Context, bin, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	d, err := prepare(bin, dir)
	if err != nil {
		return err
	}
	defer d.Close()
	fmt.Printf("Everything happens in %s\n\n", d.Dir)
	if err := d.found(ctx); err != nil {
		return err
	}
	helper, err := d.StartHelper(e2e.HelperOptions{Account: d.account})
	if err != nil {
		return err
	}
	defer helper.Stop()
	d.step("the helper of %s lends the service its session", d.account)
	if err := d.consent(ctx); err != nil {
		return err
	}
	report, err := d.Await(ctx, "a proved certificate", func(r status.Report) bool {
		return len(r.Credentials) > 0 && r.Credentials[0].State == enroll.Active
	})
	if err != nil {
		return err
	}
	d.step("the certificate is installed and proved")
	return d.show(ctx, report.Credentials[0])
}

func prepare(bin, dir string) (*demo, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "smime-demo-"); err != nil {
			return nil, err
		}
	}
	w := &e2e.World{
		Bin: bin, Dir: dir, Consent: "ask", Profile: "employee-dual",
		Employees: []e2e.Employee{{Account: me.Username, Mailbox: mailbox, Given: "Alice", Surname: "Example"}},
	}
	return &demo{World: w, account: me.Username, start: time.Now()}, nil
}

// step prints what has been reached, and when.
func (d *demo) step(format string, args ...any) {
	d.said++
	fmt.Printf("%2d. %7s  %s\n", d.said, time.Since(d.start).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

func (d *demo) found(ctx context.Context) error {
	if err := d.Founded(ctx); err != nil {
		return err
	}
	d.step("central management is founded: root, issuing CA, policy for %s", mailbox)
	if err := d.StartServer(ctx); err != nil {
		return err
	}
	if err := d.WriteSettings(ctx); err != nil {
		return err
	}
	d.step("central management runs, and has made a join token")
	if err := d.StartAgent(ctx); err != nil {
		return err
	}
	_, err := d.Await(ctx, "joining", func(r status.Report) bool { return r.Device.Joined })
	d.step("the service runs, and this machine has joined")
	return err
}

// consent shows what the employee is asked. Where somebody sits at the terminal
// he answers; otherwise the demo does.
func (d *demo) consent(ctx context.Context) error {
	_, err := d.Await(ctx, "the question", func(r status.Report) bool {
		return len(r.Credentials) > 0 && r.Credentials[0].State == enroll.Wanted
	})
	if err != nil {
		return err
	}
	d.step("policy gives %s a certificate, and the employee is asked:", d.account)
	fmt.Printf("\n%s\n", question())
	answer := "approve"
	if term.IsTerminal(int(os.Stdin.Fd())) {
		answer = ask()
	} else {
		fmt.Println("    Nobody is at the terminal, so the demo answers: approve")
	}
	fmt.Println()
	if _, err := d.Agent(ctx, answer, mailbox); err != nil {
		return err
	}
	if answer != "approve" {
		return errors.New("not approved, so the demo ends here; nothing was made")
	}
	d.start = time.Now()
	d.step("approved; from here on the clock runs anew")
	return nil
}

// question is the dialog, in words; on a desktop it is a window.
func question() string {
	t := text.For(os.Getenv("LANG"))
	d := t.Prompt(text.Question{
		Organization: "Example GmbH", Contact: "helpdesk@example.com", Mailbox: mailbox, Reason: "first", PostponementsLeft: 5,
	})
	return indent(d.Title + "\n\n" + d.Body + "\n\n[" + d.Yes + "]  [" + d.Later + "]  [" + d.No + "]\n")
}

func ask() string {
	in := bufio.NewScanner(os.Stdin)
	for {
		fmt.Print("    approve, later or decline? [approve] ")
		if !in.Scan() {
			return "approve"
		}
		switch answer := strings.TrimSpace(in.Text()); answer {
		case "", "approve":
			return "approve"
		case "later", "decline":
			return answer
		}
	}
}

// auditLine is what the demo shows of a line of the audit trail.
type auditLine struct {
	Time    time.Time `json:"time"`
	Event   string    `json:"event"`
	Outcome string    `json:"outcome"`
	Store   string    `json:"store"`
}

func (d *demo) show(ctx context.Context, c status.Credential) error {
	if err := d.timeline(); err != nil {
		return err
	}
	text, err := d.Agent(ctx, "status")
	if err != nil {
		return err
	}
	fmt.Printf("\nWhat `smime-agent status` says:\n\n%s", indent(text))
	ledger, err := d.ledger(ctx, c.Serial)
	if err != nil {
		return err
	}
	fmt.Printf("\nWhat the ledger of central management says:\n\n%s", indent(ledger))
	d.hints(c)
	return nil
}

// timeline prints what the audit trail has, with the time since the line before.
func (d *demo) timeline() error {
	raw, err := os.ReadFile(filepath.Join(d.Dir, "agent", "log", "audit.log"))
	if err != nil {
		return err
	}
	fmt.Printf("\nThe timeline, from the audit trail:\n\n")
	var before time.Time
	for text := range strings.Lines(string(raw)) {
		var l auditLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return err
		}
		wait := time.Duration(0)
		if !before.IsZero() {
			wait = l.Time.Sub(before)
		}
		before = l.Time
		fmt.Printf("    %s  %+9.1f ms  %-22s %s\n", l.Time.Format("15:04:05.000"), float64(wait.Microseconds())/1000, l.Event, l.Outcome)
	}
	return nil
}

// ledger waits until the proof has been reported.
func (d *demo) ledger(ctx context.Context, serial string) (string, error) {
	for {
		var entries []struct {
			Serial string `json:"serial"`
			Proof  *struct {
				OK bool `json:"ok"`
			} `json:"proof"`
		}
		raw, err := d.Central(ctx, "ledger", "--json")
		if err != nil {
			return "", err
		}
		if err := json.Unmarshal([]byte(raw), &entries); err != nil {
			return "", fmt.Errorf("ledger: %w", err)
		}
		for _, e := range entries {
			if e.Serial == serial && e.Proof != nil && e.Proof.OK {
				return d.Central(ctx, "ledger")
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the proof did not reach the ledger: %w; it has %s", ctx.Err(), raw)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (d *demo) hints(c status.Credential) {
	fmt.Printf("\nLook at it yourself:\n\n")
	home := d.Home(d.account)
	if strings.HasPrefix(c.Store, "nss:") {
		fmt.Printf("    certutil -L -d sql:%s/.pki/nssdb        # u,u,u: a certificate with its key\n", home)
		fmt.Printf("    certutil -V -u S -d sql:%s/.pki/nssdb -n '%s'\n", home, nickname(c))
	} else {
		fmt.Printf("    ls -l %s/.local/share/smime-agent/keys\n", home)
	}
	fmt.Printf("    cat %s/agent/log/audit.log\n", d.Dir)
	fmt.Printf("    rm -r %s        # when you have seen enough; nothing is left running\n", d.Dir)
}

// nickname is the certificate's label in the store.
func nickname(c status.Credential) string { return c.Mailbox + " " + string(c.ID) }

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + line)
	}
	return b.String()
}
