//go:build linux || darwin

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"smime-agent/agent/status"
)

// World is a small company on this machine.
type World struct {
	// Bin is the folder of the built programs, Dir everything that they write.
	Bin, Dir string
	// Employees, of whom central management knows.
	Employees []Employee
	// Consent is "ask", "notify" or "silent"; Profile and Stores are as in policy.yaml.
	Consent, Profile string
	Stores           []string
	// Keys narrow the profile to these kinds of key; nil leaves the profile's own.
	Keys []string
	// Rule are further lines of the policy's rule, such as "modules: [...]".
	Rule []string
	// Host is the loopback address of central management, 127.0.0.1 if empty. With
	// one of its own, no other world takes its ports (Linux has all of 127/8).
	Host string
	// Settings are further lines of the agent's config.yaml.
	Settings []string
	// HomeDir is the HOME of the service; Dir if empty. On macOS the keychains are
	// found by it.
	HomeDir string
	// Output gets what the processes print; nil throws it away.
	Output io.Writer

	server, agent *Process
	listen        string
}

// Employee is a person with an account on this machine.
type Employee struct {
	Account, Mailbox, Given, Surname string
}

// Founded lays the company out: CAs, people, policy, a join token, settings.
func (w *World) Founded(ctx context.Context) error {
	if err := os.MkdirAll(w.Dir, 0o755); err != nil {
		return err
	}
	host := cmp.Or(w.Host, "127.0.0.1")
	ports, err := FreePorts(host, 2)
	if err != nil {
		return err
	}
	w.listen = host + ":" + ports[0]
	if _, err := w.Central(ctx, "init", "--organization", "Example GmbH", "--country", "DE", "--organization-identifier",
		"NTRDE-DER3306.HRB12345", "--host", host, "--listen", w.listen, "--web", host+":"+ports[1]); err != nil {
		return err
	}
	if err := w.WritePolicy(w.Consent); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(w.Dir, "agent"), 0o755)
}

// WritePolicy writes people and rules, with this consent mode.
func (w *World) WritePolicy(consent string) error {
	people := []string{"account,mailbox,given_name,surname,display_name,department"}
	for _, e := range w.Employees {
		people = append(people, fmt.Sprintf("%s,%s,%s,%s,%s %s,Sales", e.Account, e.Mailbox, e.Given, e.Surname, e.Given, e.Surname))
	}
	stores := "[auto]"
	if len(w.Stores) > 0 {
		stores = `["` + strings.Join(w.Stores, `", "`) + `"]`
	}
	policy := fmt.Sprintf(`organization: {name: "Example GmbH", country: "DE", identifier: "NTRDE-DER3306.HRB12345"}
contact: "helpdesk@example.com"
approval: auto
install_anchors: true
%srules:
  - departments: ["*"]
    profiles: [%s]
    consent: %s
    stores: %s
    renewal: {before: 60d, rotation: new-key}
`, w.narrowed(), w.Profile, consent, stores)
	if len(w.Rule) > 0 {
		policy += "    " + strings.Join(w.Rule, "\n    ") + "\n"
	}
	return errors.Join(
		os.WriteFile(w.path("central", "people.csv"), []byte(strings.Join(people, "\n")+"\n"), 0o600),
		os.WriteFile(w.path("central", "policy.yaml"), []byte(policy), 0o600))
}

func (w *World) narrowed() string {
	if len(w.Keys) == 0 {
		return ""
	}
	return fmt.Sprintf("profiles:\n  %s: {keys: [%s]}\n", w.Profile, strings.Join(w.Keys, ", "))
}

// path is a place in the world's folder.
func (w *World) path(parts ...string) string {
	return filepath.Join(append([]string{w.Dir}, parts...)...)
}

// ServerAddress is central management's.
func (w *World) ServerAddress() string { return w.listen }

// Address is the service's local API.
func (w *World) Address() string { return w.path("agent", "run", "agent.sock") }

// StartServer starts central management and waits until it answers.
func (w *World) StartServer(ctx context.Context) error {
	p, err := w.start(nil, "server-stub", "serve", "--dir", w.path("central"))
	if err != nil {
		return err
	}
	w.server = p
	return w.until(ctx, p, func() error {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", w.listen)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// WriteSettings makes a join token and writes the agent's settings.
func (w *World) WriteSettings(ctx context.Context) error {
	said, err := w.Central(ctx, "token", "create", "--uses", "5")
	if err != nil {
		return err
	}
	token := TokenIn(said)
	if token == "" {
		return fmt.Errorf("no token in %q", said)
	}
	return w.WriteSettingsFor(w.listen, w.path("central", "transport", "ca.crt"), token)
}

// WriteSettingsFor writes settings for another server than the world's own: its
// address, a file with its transport CA, a join token.
func (w *World) WriteSettingsFor(server, caFile, token string) error {
	lines := append([]string{
		"server: " + server, "server_ca: " + caFile,
		"join_token_file: " + w.path("agent", "token"), "state_dir: " + w.path("agent", "state"),
		"log_dir: " + w.path("agent", "log"), "address: " + w.Address(), "proxy: none", "sync_floor: 1s",
	}, w.Settings...)
	return errors.Join(
		os.MkdirAll(w.path("agent"), 0o755),
		os.WriteFile(w.path("agent", "token"), []byte(token+"\n"), 0o600),
		os.WriteFile(w.path("agent", "config.yaml"), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// TokenIn finds the token in what `token create` printed: the longest word.
func TokenIn(said string) string {
	longest := ""
	for word := range strings.FieldsSeq(said) {
		if len(word) > len(longest) {
			longest = word
		}
	}
	return longest
}

// StartAgent starts the service and waits until its local API answers.
func (w *World) StartAgent(ctx context.Context) error {
	p, err := w.start(nil, "smime-agent", "service", "run", "--config", w.path("agent", "config.yaml"),
		"--policy", w.path("agent", "policy.d"))
	if err != nil {
		return err
	}
	w.agent = p
	return w.until(ctx, p, func() error {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", w.Address())
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// Home is an employee's home folder in this world.
func (w *World) Home(account string) string { return w.path("home", account) }

// HelperOptions say how a helper runs.
type HelperOptions struct {
	Account string
	// UID and GID are used where they are not 0, which only root can do.
	UID, GID uint32
	// Address is where the helper finds the service; empty means where it is.
	Address string
	// Env are further variables, e.g. DISPLAY.
	Env []string
}

// StartHelper starts a helper in an employee's session.
func (w *World) StartHelper(o HelperOptions) (*Process, error) {
	home := w.Home(o.Account)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	if o.UID != 0 {
		if err := os.Chown(home, int(o.UID), int(o.GID)); err != nil {
			return nil, err
		}
	}
	return w.start(func(c *exec.Cmd) {
		c.Env = append(append(session(), "HOME="+home, "XDG_RUNTIME_DIR="+home, "XDG_STATE_HOME="+home+"/.local/state"), o.Env...)
		c.Dir = home
		if o.UID != 0 {
			c.SysProcAttr.Credential = &syscall.Credential{Uid: o.UID, Gid: o.GID}
		}
	}, "smime-helper", "--address", cmp.Or(o.Address, w.Address()))
}

// session is this process's environment without its desktop and its home.
func session() []string {
	var env []string
	for _, v := range os.Environ() {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "HOME", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME":
		default:
			env = append(env, v)
		}
	}
	return env
}

// Central runs a command of server-stub and gives what it printed.
func (w *World) Central(ctx context.Context, args ...string) (string, error) {
	return w.run(ctx, "server-stub", append(args, "--dir", w.path("central"))...)
}

// Agent runs a command of smime-agent and gives what it printed. status has exit
// codes for monitoring; they are no error here.
func (w *World) Agent(ctx context.Context, args ...string) (string, error) {
	out, err := w.run(ctx, "smime-agent", append(args, "--address", w.Address())...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && args[0] == "status" && exit.ExitCode() < 3 {
		return out, nil
	}
	return out, err
}

// Report asks for the status.
func (w *World) Report(ctx context.Context) (status.Report, error) {
	var r status.Report
	out, err := w.Agent(ctx, "status", "--json")
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(out), &r)
}

// Await asks for the status until it is as wanted.
func (w *World) Await(ctx context.Context, what string, want func(status.Report) bool) (status.Report, error) {
	var last status.Report
	for {
		r, err := w.Report(ctx)
		if err == nil {
			if last = r; want(r) {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			raw, _ := json.MarshalIndent(last, "", "  ")
			return last, fmt.Errorf("waiting for %s: %w; %w; last status: %s", what, ctx.Err(), err, raw)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Command is one of the programs with the world's environment, ready to be run.
func (w *World) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(w.Bin, program), args...)
	c.Env = append(session(), "HOME="+w.Dir)
	return c
}

func (w *World) run(ctx context.Context, program string, args ...string) (string, error) {
	c := w.Command(ctx, program, args...)
	var out, problems bytes.Buffer
	c.Stdout, c.Stderr = &out, &problems
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}

// until waits for a process to be ready, or for its end.
func (w *World) until(ctx context.Context, p *Process, ready func() error) error {
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, p.tail.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Server and Service are the running processes.
func (w *World) Server() *Process { return w.server }

// Service is the agent's.
func (w *World) Service() *Process { return w.agent }

// Close ends what runs.
func (w *World) Close() {
	for _, p := range []*Process{w.agent, w.server} {
		if p != nil {
			p.Stop()
		}
	}
}

// FreePorts gives ports of the loopback that nobody listens on at the moment.
func FreePorts(host string, n int) ([]string, error) {
	var ports []string
	for range n {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all are held until all are known
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
