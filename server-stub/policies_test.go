package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMessagesNameTheFileGiven: what is wrong in files that were named, in place
// of those of the data directory, is told of them.
func TestMessagesNameTheFileGiven(t *testing.T) {
	dir := found(t)
	c := serve(t, dir)
	addr, folder := c.addr, t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := os.ReadFile(filepath.Join(dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	badRules := write("next.yaml", string(good)+"wrong: 1\n")
	people := write("staff.csv", "account,mailbox,given_name,surname,department\nalice,alice@example.com,Alice,Example,Sales\n")
	badPeople := write("former.csv", "account,mailbox\n")
	checkedByMail := write("checked.yaml", strings.Replace(string(good), "consent: ask", "consent: ask\n    mailbox_check: mail", 1))
	for _, verb := range []string{"check", "diff", "apply"} {
		for name, c := range map[string]struct {
			args  []string
			wants string
		}{
			"rules":                 {[]string{"--rules", badRules, "--people", people}, badRules + ":"},
			"people":                {[]string{"--people", badPeople}, badPeople + ":1:"},
			"what the server lacks": {[]string{"--rules", checkedByMail, "--people", people}, checkedByMail + ":1:"},
		} {
			_, err := cli(t, append([]string{"policy", verb, "--dir", dir, "--server", addr}, c.args...)...)
			if err == nil || !strings.Contains(err.Error(), c.wants) || strings.Contains(err.Error(), "policy.yaml") || strings.Contains(err.Error(), "people.csv") {
				t.Errorf("policy %s, %s: %v, want %q", verb, name, err, c.wants)
			}
		}
	}
	c.stop(t)
}
