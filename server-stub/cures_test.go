package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smime-agent/server-stub/refusal"
	"smime-agent/server-stub/store"
)

// TestWithheldCredential: without LoadCredential= the service may not even look
// into the folder of credentials, and that is no matter of its account.
func TestWithheldCredential(t *testing.T) {
	t.Parallel()
	for _, reason := range []error{syscall.EACCES, syscall.ENOENT} {
		err := fmt.Errorf("server.yaml: %w", &fs.PathError{Op: "open", Path: "/run/credentials/smime-central.service/mail.password", Err: reason})
		if got := errorText(cureOf(err)); !strings.Contains(got, "LoadCredential=") {
			t.Errorf("%v: %s", reason, got)
		}
		if code := exitCode((&app{dir: t.TempDir()}).lasting(err)); code != exitLasting {
			t.Errorf("%v: exit code %d", reason, code)
		}
	}
}

// TestWrongDataDirectory starts the server over a data directory in which one
// file is not as it was: it says which and what to do, and leaves it as it is.
func TestWrongDataDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start := func(args ...string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // where it starts after all
		defer cancel()
		return run(ctx, append(args, "--dir", dir), env{out: io.Discard, err: io.Discard, now: time.Now})
	}
	if err := start("init", "--organization", "Example GmbH", "--country", "DE", "--organization-identifier", "NTRDE-DER3306.HRB12345",
		"--host", "127.0.0.1", "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, "server.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(old, text string) string {
		if !bytes.Contains(config, []byte(old)) {
			t.Fatalf("no %q in server.yaml", old)
		}
		return strings.Replace(string(config), old, text, 1)
	}
	for _, c := range []struct{ name, file, text, said, cure string }{
		// First, since what was once in force is on record.
		{"rules that are none", "policy.yaml", "rules: [\n", "policy.yaml:1", "docs/central-management.md"},
		{"no YAML", "server.yaml", "listen: [\n", "server.yaml:1: this cannot be read", "its own comments"},
		{"a setting that is none", "server.yaml", string(config) + "lissten: x\n", `unknown field "lissten"`, "its own comments"},
		{"no text", "server.yaml", "\xff\xfe", "server.yaml", "its own comments"},
		{"nothing", "server.yaml", "", "must be set", "its own comments"},
		{"an address that is none", "server.yaml", with(`"127.0.0.1:0"`, "nonsense"), "nonsense", "host:port"},
		{"a port that is none", "server.yaml", with(`"127.0.0.1:0"`, `"127.0.0.1:99999"`), "99999", "host:port"},
		{"an address elsewhere", "server.yaml", with(`"127.0.0.1:0"`, `"192.0.2.1:1"`), "192.0.2.1", "of this machine"},
		{"a key that is none", "ca/issuing.key", "x", "damaged", "backup"},
		{"half a key", "ca/issuing.key", "-----BEGIN PRIVATE KEY-----\nMIG=\n-----END PRIVATE KEY-----\n", "damaged", "backup"},
		{"a certificate that is none", "ca/issuing.crt", "x", "damaged", "backup"},
		{"no key", "ca/issuing.key", missingFile, "no such file", "not made again"},
		{"no transport key", "transport/server.key", missingFile, "no such file", "not made again"},
		{"no password of the mail server", "server.yaml", with(mailBlock, "  server: \"127.0.0.1:25\"\n  from: a@example.com\n  password_file: nope\n"), "nope", "name another"},
		{"no credential", "server.yaml", with(mailBlock, "  server: \"127.0.0.1:25\"\n  from: a@example.com\n  password_file: /run/credentials/none.service/nope\n"), "nope", "LoadCredential="},
		{"records that are none", "records.db", strings.Repeat("garbage ", 4096), "records.db", "backup"},
	} {
		path := filepath.Join(dir, filepath.FromSlash(c.file))
		good, err := os.ReadFile(path)
		if err != nil && c.file != "records.db" {
			t.Fatal(err)
		}
		if c.text == missingFile {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, []byte(c.text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		err = start("serve")
		sentence, cure, two := strings.Cut(strings.TrimSpace(errorText(err)), "\n")
		if !two {
			sentence, cure = errorText(err), errorText(err) // a file with lines has its cure on the line
		}
		if !strings.Contains(sentence, c.said) || !strings.Contains(cure, c.cure) || strings.Contains(errorText(err), "\xff") {
			t.Errorf("%s: %v", c.name, err)
		}
		restarting := c.file == "records.db" || c.file == "policy.yaml" || strings.Contains(c.cure, "host:port") || strings.Contains(c.cure, "of this machine")
		if (exitCode(err) == exitLasting) == restarting {
			t.Errorf("%s: exit code %d", c.name, exitCode(err))
		}
		if now, _ := os.ReadFile(path); c.text != missingFile && string(now) != c.text {
			t.Errorf("%s: the file is now %.60q", c.name, now)
		}
		if good == nil {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, good, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := start("serve"); err != nil {
		t.Errorf("put right: %v", err)
	}
}

// TestServerInTrouble: who gets an answer of the server is not asked whether it runs.
func TestServerInTrouble(t *testing.T) {
	for want, inside := range map[string]error{
		"database does not answer": store.ErrUnavailable, "disk or CA": io.ErrUnexpectedEOF, "more to do than it can queue": store.ErrOverloaded,
	} {
		err, _ := refusal.Status(inside)
		text := errorText(explain(fmt.Errorf("list: %w", err)))
		sentence, cure, _ := strings.Cut(text, "\n")
		if !strings.Contains(sentence, want) || !strings.Contains(cure, "again") || strings.Contains(cure, "running") {
			t.Errorf("%v: %s", inside, text)
		}
	}
	if text := errorText(explain(status.Error(codes.Unavailable, `connection error: desc = "transport: refused"`))); !strings.Contains(text, "running") {
		t.Errorf("no answer at all: %s", text)
	}
}

const mailBlock = `  server: ""              # host:port, such as smtp.example.com:587
  security: starttls      # or tls, or none for a mail server on this machine
  from: ""
  administrator: ""
  user: ""
  password_file: ""       # in this directory, readable by the server alone
`

const missingFile = "\x00missing"

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
