package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smime-agent/agent/config"
	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

// inForce is all that a wrong input must leave as it is.
type inForce struct {
	Settings    map[string]string
	Policy      string
	Ledger      []string
	Credentials []string
	Tokens      string
	// Keys are the files of the employee's store, by a hash of their content.
	Keys map[string]string
}

func (w *world) inForce() inForce {
	w.t.Helper()
	r, err := w.Report(w.within())
	w.must(err)
	now := inForce{Settings: w.settings(), Policy: r.Device.PolicyRevision, Tokens: w.central("token", "list"), Keys: w.hashes(".local/share/smime-agent/keys")}
	for _, e := range w.ledger() {
		now.Ledger = append(now.Ledger, e.Serial+" "+e.Status)
	}
	for _, c := range r.Credentials {
		now.Credentials = append(now.Credentials, fmt.Sprint(c.ID, c.State, c.Serial))
	}
	slices.Sort(now.Credentials)
	return now
}

// settings are the values in force, as people see them.
func (w *world) settings() map[string]string {
	w.t.Helper()
	var all status.Settings
	w.must(json.Unmarshal([]byte(w.agent("policy", "--json")), &all))
	values := map[string]string{}
	for _, v := range all.Settings {
		values[v.Name] = v.Value
	}
	return values
}

func (w *world) hashes(below string) map[string]string {
	w.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(filepath.Join(w.Home(w.account), below), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		sum := sha256.Sum256(raw)
		all[path] = hex.EncodeToString(sum[:])
		return err
	})
	w.must(err)
	return all
}

// unchanged fails for whatever differs from before.
func (w *world) unchanged(what string, before inForce) {
	w.t.Helper()
	if now := w.inForce(); fmt.Sprint(now) != fmt.Sprint(before) {
		w.t.Errorf("%s: in force was\n%+v\nand is\n%+v", what, before, now)
	}
}

// badSettings has a wrong value for each setting, and a word of what is said of it.
var badSettings = map[string]struct{ value, said string }{
	"server": {"https://x.example:1", "is a URL"}, "server_ca": {"ca.pem", "from the root"}, "server_pin": {"sha1/AAAA", "sha256/"},
	"join_token": {"two words", "token"}, "join_token_file": {"token", "from the root"}, "proxy": {"socks5://p.example", "http://proxy.example:3128"},
	"proxy_user": {`"a\nb"`, "one line"}, "proxy_password_file": {"./p", "from the root"}, "organization": {"{a: b}", "quotes"},
	"state_dir": {"state", "from the root"}, "log_dir": {"../log", "from the root"}, "address": {"localhost:80", "from the root"},
	"log_level": {"loud", "debug, info, warn or error"}, "log_max_size_mb": {"0", "1 to 1000"}, "log_max_files": {"many", "1 to 100"},
	"sync_floor": {"60", "with its unit"}, "retry_cap": {"2d", "1s to 1d"}, "proof_interval": {"31d", "1m to 30d"},
	"self_check":     {"9s", "10s to 1d"},
	"prompt_timeout": {"1s", "10s to 1d"}, "show_notices": {"perhaps", "true or false"},
}

// TestWrongSettingsChangeNothing writes a wrong value for each setting there is
// into each place that a running service reads, all at once and then as a file
// that is none: each is named with its cure, and the last good values stay.
func TestWrongSettingsChangeNothing(t *testing.T) {
	t.Parallel()
	w := company(t, func(w *e2e.World) { w.Settings = append(w.Settings, "organization: Example", "show_notices: false") })
	w.open()
	w.login(e2e.HelperOptions{})
	w.await("a proved certificate", has(alice, enroll.Active))
	file := filepath.Join(w.Dir, "agent", "config.yaml")
	good, err := os.ReadFile(file)
	w.must(err)
	before := w.inForce()
	var bad strings.Builder
	for _, s := range config.Table() {
		row, ok := badSettings[s.Name]
		if !ok {
			t.Errorf("no wrong value for the setting %s", s.Name)
			continue
		}
		fmt.Fprintf(&bad, "%s: %s\n", s.Name, row.value)
	}
	policy := filepath.Join(w.Dir, "agent", "policy.d", "10-wrong.yaml")
	w.must(os.MkdirAll(filepath.Dir(policy), 0o755))
	for _, c := range []struct{ name, path, text string }{
		{"the file", file, bad.String()}, {"managed policy", policy, bad.String()},
		{"a file that is no YAML", file, "server: [\n"}, {"policy that is no YAML", policy, "\x00\xff"},
	} {
		w.must(os.WriteFile(c.path, []byte(c.text), 0o644))
		told := w.await("word of "+c.name, func(r status.Report) bool {
			x, ok := condition(r, status.SettingsInvalid)
			return ok && strings.Contains(x.Detail, c.path)
		})
		x, _ := condition(told, status.SettingsInvalid)
		for name, row := range badSettings {
			if c.text == bad.String() && (!strings.Contains(x.Detail, name+" (") || !strings.Contains(x.Detail, row.said)) {
				t.Errorf("%s: nothing of %s (%s) in %s", c.name, name, row.said, x.Detail)
			}
		}
		w.unchanged(c.name, before)
		w.must(os.WriteFile(file, good, 0o600))
		if c.path == policy {
			w.must(os.Remove(policy))
		}
		w.await("nothing of "+c.name, func(r status.Report) bool {
			_, ok := condition(r, status.SettingsInvalid)
			return !ok
		})
	}
	w.unchanged("put right", before)
}

// TestWrongFilesOfCentralChangeNothing hands wrong people and rules to the server
// that runs: each is refused by file and line, with its cure.
func TestWrongFilesOfCentralChangeNothing(t *testing.T) {
	t.Parallel()
	w := company(t, nil)
	w.open()
	w.login(e2e.HelperOptions{})
	w.await("a proved certificate", has(alice, enroll.Active))
	before := w.inForce()
	rules, err := os.ReadFile(filepath.Join(w.Dir, "central", "policy.yaml"))
	w.must(err)
	people, err := os.ReadFile(filepath.Join(w.Dir, "central", "people.csv"))
	w.must(err)
	swap := func(text []byte, old, with string) string {
		if !strings.Contains(string(text), old) {
			t.Fatalf("%q is not in %s", old, text)
		}
		return strings.Replace(string(text), old, with, 1)
	}
	file := filepath.Join(w.Dir, "wrong")
	for _, c := range []struct{ flag, name, text, said, cure string }{
		{"--rules", "nothing", "", ":1: ", "rule"},
		{"--rules", "no YAML", "rules: [\n", ":1: ", "docs/central-management.md"},
		{"--rules", "a key that is none", swap(rules, "approval:", "aproval:"), ":3: ", "docs/central-management.md"},
		{"--rules", "a word that is none", swap(rules, "approval: auto", "approval: never"), ":3: ", `"auto" or "administrator"`},
		{"--rules", "a consent that is none", swap(rules, "consent: silent", "consent: maybe"), ": ", "ask, notify, silent"},
		{"--rules", "a profile that is none", swap(rules, "profiles: [employee-sign]", "profiles: [emploee]"), ": ", "employee-sign"},
		{"--rules", "a time that is none", swap(rules, "before: 60d", "before: soon"), ": ", `"60d"`},
		{"--rules", "a country that is none", swap(rules, `"DE"`, `"Germany"`), ":1: ", "ISO 3166"},
		{"--rules", "an anchor of YAML", swap(rules, "approval: auto", "approval: &a auto"), ":1: ", "out"},
		{"--rules", "no text", "\xff\xfe\x00", ":1: ", "UTF-8"},
		{"--rules", "partners that are not there", string(rules) + "partners: [nowhere.pem]\n", "nowhere.pem", "beside this file"},
		{"--people", "nothing", "", ":1: ", "name the columns"},
		{"--people", "a column that is none", swap(people, "account,", "acount,"), ":1: ", "Add it to the heading"},
		{"--people", "too few fields", string(people) + "x,x@example.com\n", ":3: ", "as many fields"},
		{"--people", "an address that is none", string(people) + "x,nobody,A,B,A B,Sales\n", ":3: ", "name@domain"},
		{"--people", "no account", string(people) + ",x@example.com,A,B,A B,Sales\n", ":3: ", "alice"},
		{"--people", "no department", string(people) + "x,x@example.com,A,B,A B,\n", ":3: ", "department"},
		{"--people", "no names", string(people) + "x,x@example.com,,,,Sales\n", ":3: ", "given_name"},
		{"--people", "twice the same", string(people) + strings.SplitAfter(string(people), "\n")[1], ":3: ", "Remove one"},
		{"--people", "an open quote", string(people) + "\"x,x@example.com,A,B,A B,Sales\n", ":3: ", "quotes in pairs"},
		{"--people", "UTF-16", "\xff\xfea\x00", ":1: ", "CSV UTF-8"},
		{"--people", "a control character", string(people) + "x,x@example.com,\x1b[2J,B,A B,Sales\n", ":3: ", "Remove it"},
	} {
		w.must(os.WriteFile(file, []byte(c.text), 0o600))
		for _, verb := range []string{"check", "apply"} {
			_, err := w.Central(w.within(), "policy", verb, c.flag, file)
			if err == nil {
				t.Fatalf("%s: %s was taken", c.flag, c.name)
			}
			said := err.Error()
			if !strings.Contains(said, c.said) || !strings.Contains(said, c.cure) || strings.ContainsAny(said, "\x1b\x00") || strings.Contains(said, "rpc error") {
				t.Errorf("%s %s: %s: %s", verb, c.flag, c.name, said)
			}
		}
	}
	w.agent("sync")
	w.unchanged("wrong files", before)
}

// TestWrongTokens starts a machine with each kind of join token that is none. It
// says what is wrong and what to do, in both languages, and burns nothing; and
// with a good one it joins.
func TestWrongTokens(t *testing.T) {
	t.Parallel()
	w := company(t, nil)
	ctx := w.within()
	w.must(w.Founded(ctx))
	w.must(w.StartServer(ctx))
	token := func(args ...string) string {
		words := strings.Fields(w.central(append([]string{"token", "create"}, args...)...))
		return slices.MaxFunc(words, func(a, b string) int { return len(a) - len(b) })
	}
	good := token("--uses", "1")
	revoked := token("--label", "lost")
	for line := range strings.Lines(w.central("token", "list")) {
		if strings.Contains(line, "lost") {
			w.central("token", "revoke", strings.Fields(line)[0])
		}
	}
	w.must(w.WriteSettings(ctx))
	path, ca := filepath.Join(w.Dir, "agent", "token"), filepath.Join(w.Dir, "central", "transport", "ca.crt")
	tokens := w.central("token", "list")
	for _, c := range []struct {
		name, token string
		mode        fs.FileMode
		code        enroll.Code
		said        string
	}{
		{"nothing", "", 0o600, "not-joined", "join_token_file"},
		{"spaces", "  ", 0o600, "", ""},
		{"two lines", good + "\n" + good, 0o600, "not-joined", "one line"},
		{"zeros", "\x00\x00", 0o600, "not-joined", "one line"},
		{"too long", strings.Repeat("x", 5000), 0o600, "not-joined", "one line"},
		{"for all to read", good, 0o644, "not-joined", "chmod 600"},
		{"for all to write", good, 0o666, "not-joined", "chmod 600"},
		{"forged", "forged-token-that-nobody-made", 0o600, "join-token-refused", "does not know"},
		{"half of a good one", good[:len(good)/2], 0o600, "join-token-refused", "does not know"},
		{"a good one in upper case", strings.ToUpper(good) + "X", 0o600, "join-token-refused", "does not know"},
		{"no letters", "日本語\x1b[2J", 0o600, "", ""},
		{"revoked", revoked, 0o600, "join-token-refused", "revoked"},
	} {
		w.must(w.WriteSettingsFor(w.ServerAddress(), ca, c.token))
		w.must(os.WriteFile(path, []byte(c.token), c.mode))
		w.must(os.Chmod(path, c.mode))
		w.must(os.RemoveAll(filepath.Join(w.Dir, "agent", "state")))
		w.must(w.StartAgent(w.within()))
		var seen status.Condition
		r := w.await(c.name+" is told of", func(r status.Report) bool {
			for _, code := range []enroll.Code{"not-joined", "join-token-refused"} {
				if x, ok := condition(r, code); ok && x.Detail != "" {
					seen = x
					return true
				}
			}
			return false
		})
		if c.code != "" && (seen.Code != c.code || !strings.Contains(seen.Detail, c.said)) || seen.Cure == "" {
			t.Errorf("%s: %+v", c.name, seen)
		}
		if r.Device.Joined {
			t.Errorf("%s: it joined", c.name)
		}
		for _, language := range []string{"en", "zh-CN"} {
			out, _ := w.Agent(w.within(), "status", "--language", language)
			if !strings.Contains(out, "->") || strings.ContainsAny(out, "\x1b\x00") || strings.Contains(out, good) {
				t.Errorf("%s in %s:\n%s", c.name, language, out)
			}
		}
		w.Service().Stop()
		if left, err := os.ReadFile(path); err != nil || string(left) != c.token {
			t.Errorf("%s: the file has %q, %v", c.name, left, err)
		}
	}
	if now := w.central("token", "list"); now != tokens {
		t.Errorf("tokens were\n%s\nand are\n%s", tokens, now)
	}
	w.must(w.WriteSettingsFor(w.ServerAddress(), ca, good))
	w.must(w.StartAgent(w.within()))
	w.await("a machine that joined", func(r status.Report) bool { return r.Device.Joined })
	w.Server().Stop()
	for language, word := range map[string]string{"en": "No answer comes from central management", "zh-CN": "集中管理"} {
		_, err := w.Agent(w.within(), "sync", "--language", language)
		if err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), "\n  -> ") || strings.Contains(err.Error(), "rpc error") {
			t.Errorf("sync without a server in %s: %v", language, err)
		}
	}
}

// TestWrongKeyFiles damages what lies in the employee's store under a certificate
// that is in use, and next to it. Each is told of with its cure, no file is
// changed that a person may still mend, no key is made in a loop; and when the
// file is back all is well.
func TestWrongKeyFiles(t *testing.T) {
	t.Parallel()
	w := company(t, nil)
	w.open()
	w.login(e2e.HelperOptions{})
	c, _ := credential(w.await("a proved certificate", has(alice, enroll.Active)), alice, enroll.Active)
	w.ledgerOf(c)
	dir := filepath.Join(w.Home(w.account), ".local/share/smime-agent/keys")
	key := filepath.Join(dir, string(c.ID)+".key")
	good, err := os.ReadFile(key)
	w.must(err)
	for _, d := range []struct {
		name, text string
	}{
		{"empty", ""}, {"half", string(good[:len(good)/2])}, {"garbage", "\x00\xff\x1b[2J"}, {"a certificate", "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"},
	} {
		keys := w.keys()
		w.must(os.WriteFile(key, []byte(d.text), 0o600))
		_, _ = w.Agent(w.within(), "prove", alice)
		r := w.await(d.name+" is told of", func(r status.Report) bool {
			now := named(r, c.ID)
			return now != nil && now.Problem != nil && now.Problem.Code == enroll.CodeStoreFailed
		})
		if p := named(r, c.ID).Problem; !strings.Contains(p.Hint, "doctor") || strings.ContainsAny(p.Hint, "\x1b\x00") {
			t.Errorf("%s: %+v", d.name, p)
		}
		if now, err := os.ReadFile(key); err != nil || string(now) != d.text {
			t.Errorf("%s: the file is now %q, %v", d.name, now, err)
		}
		w.must(os.WriteFile(key, good, 0o600))
		w.agent("prove", alice)
		w.await("health after "+d.name, func(r status.Report) bool {
			now := named(r, c.ID)
			return now != nil && (now.State == enroll.Active || now.State == enroll.Kept) && now.Proof.OK() && r.Severity == status.OK
		})
		if n := w.keys(); n > keys+1 {
			t.Errorf("%s: %d keys more", d.name, n-keys)
		}
	}
	r := w.await("rest", atRest)
	if v, err := w.oracle().judge(r); err != nil || v.keys != v.certificates || v.decrypted != v.keys {
		t.Errorf("oracle: %+v, %v", v, err)
	}
}
