package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestSecretsArePrivate: no setting takes a file with a secret that other accounts
// can read, and each says so in the same words, with what to do.
func TestSecretsArePrivate(t *testing.T) {
	dir := found(t)
	path, secret := filepath.Join(dir, "server.yaml"), filepath.Join(dir, "secret")
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	est := "  url: https://ca.example.com/.well-known/est\n  anchors: ca/root.crt\n"
	for setting, text := range map[string]string{
		"store.password_file":     "  postgres: \"host=localhost dbname=smime\"\n",
		"mail.password_file":      "  server: \"127.0.0.1:25\"\n  security: none\n  from: a@example.com\n  user: a\n",
		"est.password_file":       est,
		"est.identity":            est,
		"directory.password_file": "  url: ldaps://ldap.example.com\n  base: dc=example\n  bind_dn: cn=a\n",
	} {
		section, key, _ := strings.Cut(setting, ".")
		block := regexp.MustCompile(`(?m)^` + section + ":\n(  .*\n)+")
		if !block.Match(config) {
			t.Fatalf("no %s in server.yaml", section)
		}
		with := block.ReplaceAll(config, []byte(section+":\n"+text+"  "+key+": secret\n"))
		if err := os.WriteFile(path, with, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []os.FileMode{0o640, 0o604} {
			if err := os.Remove(secret); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if os.Getuid() == 0 { // for of root's a group may read
				if err := os.Chown(secret, 65534, 65534); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(secret, mode); err != nil {
				t.Fatal(err)
			}
			said := served(t, dir)
			for _, want := range []string{setting, "other accounts can read " + secret, "chmod 600"} {
				if !strings.Contains(errorText(said), want) {
					t.Errorf("%s, mode %o: %v, without %q", setting, mode, said, want)
				}
			}
			if exitCode(said) != exitLasting {
				t.Errorf("%s, mode %o: exit code %d", setting, mode, exitCode(said))
			}
		}
	}
}

// served gives the error of a server that is not to start; nil if it does.
func served(t *testing.T, dir string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // where it starts after all
	defer cancel()
	return run(ctx, []string{"serve", "--dir", dir}, env{out: io.Discard, err: io.Discard, now: time.Now})
}
