package site

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/esttest"
)

// TestESTSettings: what cannot work is said at the start, with the setting's name,
// and not by each order that fails.
func TestESTSettings(t *testing.T) {
	dir := t.TempDir()
	root, err := esttest.NewCA("root", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"root.pem": string(esttest.PEM(root.Cert)), "password": "secret\n", "empty.pem": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const address = "https://ca.example.com/.well-known/est"
	for name, c := range map[string]struct {
		est  EST
		want string
	}{
		"none":                 {EST{}, ""},
		"good":                 {EST{URL: address, Anchors: "root.pem", CAFile: "root.pem", User: "ra", PasswordFile: "password"}, ""},
		"in the clear":         {EST{URL: "http://ca.example.com/.well-known/est", Anchors: "root.pem"}, "it must be https"},
		"no address":           {EST{URL: "ca.example.com", Anchors: "root.pem"}, "it must be https"},
		"password in it":       {EST{URL: "https://ra:secret@ca.example.com/.well-known/est", Anchors: "root.pem"}, "has a name in it"},
		"no anchors":           {EST{URL: address}, "est.anchors is missing"},
		"anchors not there":    {EST{URL: address, Anchors: "none.pem"}, "est.anchors"},
		"anchors empty":        {EST{URL: address, Anchors: "empty.pem"}, "est.anchors"},
		"CA file not there":    {EST{URL: address, Anchors: "root.pem", CAFile: "none.pem"}, "est.ca_file"},
		"identity without key": {EST{URL: address, Anchors: "root.pem", Identity: "root.pem"}, "est.identity"},
		"user alone":           {EST{URL: address, Anchors: "root.pem", User: "ra"}, "user and password_file"},
		"password alone":       {EST{URL: address, Anchors: "root.pem", PasswordFile: "password"}, "user and password_file"},
		"colon":                {EST{URL: address, Anchors: "root.pem", User: "r:a", PasswordFile: "password"}, "no colon"},
	} {
		externals, err := Config{EST: c.est}.externals(dir, time.Now)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if lasting := errors.Is(err, ErrConfig) || errors.Is(err, os.ErrNotExist) || errors.Is(err, ca.ErrFile); err != nil && !lasting {
			t.Errorf("%s: a service manager would start it again and again: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error repeats the password: %v", name, err)
		}
		if err == nil && len(externals) != min(len(c.est.URL), 1) {
			t.Errorf("%s: %d authorities", name, len(externals))
		}
	}
}

// TestMailSettings: the same for the mail server.
func TestMailSettings(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "empty.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const server, from = "smtp.example.com:587", "pki@example.com"
	for name, c := range map[string]struct {
		mail Mail
		want string
	}{
		"none":                       {Mail{}, ""},
		"good":                       {Mail{Server: server, From: from, Administrator: "admins@example.com"}, ""},
		"a sender's name":            {Mail{Server: server, From: "PKI <pki@example.com>"}, "mail.from"},
		"an administrator's name":    {Mail{Server: server, From: from, Administrator: "Admins <admins@example.com>"}, "mail.administrator"},
		"a line more":                {Mail{Server: server, From: from + "\r\nBcc: x@example.com"}, "mail.from"},
		"no sender":                  {Mail{Server: server}, "mail.from"},
		"no administrator's address": {Mail{Server: server, From: from, Administrator: "admins"}, "mail.administrator"},
		"two administrators":         {Mail{Server: server, From: from, Administrator: "a@example.com, b@example.com"}, "mail.administrator"},
		"CA file not there":          {Mail{Server: server, From: from, CAFile: "none.pem"}, "mail.ca_file"},
		"CA file empty":              {Mail{Server: server, From: from, CAFile: "empty.pem"}, "mail.ca_file"},
	} {
		_, err := Config{Mail: c.mail}.mailing(dir)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && !errors.Is(err, ErrConfig) && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a service manager would start it again and again: %v", name, err)
		}
	}
}
