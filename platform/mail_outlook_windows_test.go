package platform_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/windows/registry"

	"smime-agent/platform"
	"smime-agent/platform/internal/outlook"
	"smime-agent/platform/platformtest"
)

const (
	outlookKey     = `Software\Microsoft\Office\16.0\Outlook`
	outlookSection = outlookKey + `\Profiles\Work\c02ebc5353d9cd11975200aa004ae40e`
	outlookMailbox = "ann@corp.example"
	outlookBackups = `Software\smime-agent\outlook`
)

// foreignSettings is a security profile that somebody else made, for Outlook of 64 bits.
func foreignSettings(t *testing.T) (outlook.Block, []byte) {
	t.Helper()
	b, err := outlook.New(outlook.Settings{Name: "Müller", Defaults: 7, SignSHA1: bytes.Repeat([]byte{7}, 20), Capabilities: outlook.Capabilities("aes-128", "sha-384")})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := outlook.Profile{b}.Marshal(outlook.X64)
	if err != nil {
		t.Fatal(err)
	}
	return b, raw
}

// openOutlook plants what Outlook keeps: a profile with the mailbox, with foreign
// security settings and values that nobody knows, and another person's.
func openOutlook(t *testing.T) platformtest.MailWorld {
	t.Helper()
	if k, err := registry.OpenKey(registry.CURRENT_USER, outlookKey, registry.QUERY_VALUE); err == nil {
		_ = k.Close()
		t.Skip("SKIP: there is an Outlook here, whose settings a test does not touch")
	}
	_, foreign := foreignSettings(t)
	t.Cleanup(func() {
		for _, root := range []registry.Key{registry.CURRENT_USER, registry.LOCAL_MACHINE} {
			removeTree(t, root, outlookKey)
		}
		removeTree(t, registry.CURRENT_USER, outlookBackups)
		removeTree(t, registry.CURRENT_USER, `Software\Policies\Microsoft\Office`)
	})
	accounts := `\9375CFF0413111d3B88A00104B2A6676\00000002`
	plantText(t, registry.LOCAL_MACHINE, outlookKey, "Bitness", "x64")
	plantText(t, registry.CURRENT_USER, outlookKey+`\Profiles\Work`+accounts, "Account Name", "Ann@corp.example")
	plantText(t, registry.CURRENT_USER, outlookKey+`\Profiles\Sales`+accounts, "Email", "sales@corp.example")
	plantBinary(t, outlookSection, "11020355", foreign)
	plantBinary(t, outlookSection, "00030354", []byte{0, 0, 1, 0})
	plantBinary(t, outlookSection, "11020399", []byte("nobody knows"))
	var close func()
	return platformtest.MailWorld{
		Program: programNamed(t, "outlook"), Mailbox: outlookMailbox,
		Bytes:   func() []byte { return dumpTree(t, outlookKey, nil) },
		Foreign: func() []byte { return dumpTree(t, outlookKey, []string{"11020355", "00030354"}) },
		Running: func(running bool) {
			if !running {
				close()
				return
			}
			close = runsAsOutlook(t)
		},
		Managed: func(platform.MailSettings) {
			plantNumber(t, `Software\Policies\Microsoft\Office\16.0\Outlook\Security`, "AlwaysEncrypt", 0)
		},
	}
}

func TestOutlook(t *testing.T) {
	platformtest.TestMailProgram(t, openOutlook)
}

// TestOutlookBesideForeign compares the octets of a foreign entry: all that it
// loses is to be the default.
func TestOutlookBesideForeign(t *testing.T) {
	w := openOutlook(t)
	list, err := w.Program.Accounts(t.Context(), w.Mailbox)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d accounts, %v", len(list), err)
	}
	c := platformtest.MailCertificate(t, w.Mailbox)
	want := platform.MailSettings{Signing: platform.RefTo(c), Encryption: platform.RefTo(c), Sign: platform.On}
	if _, err := list[0].Apply(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	k, err := registry.OpenKey(registry.CURRENT_USER, outlookSection, registry.QUERY_VALUE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	raw, kind, err := k.GetBinaryValue("11020355")
	if err != nil || kind != registry.BINARY {
		t.Fatal(kind, err)
	}
	foreign, before := foreignSettings(t)
	ours, err := outlook.New(outlook.Settings{
		Name: outlook.OurName, Defaults: 7, SignSHA1: platform.RefTo(c).SHA1, EncryptSHA1: platform.RefTo(c).SHA1, Capabilities: foreign.Capabilities(),
	})
	if err != nil {
		t.Fatal(err)
	}
	both, err := outlook.Profile{foreign}.With(ours)
	if err != nil {
		t.Fatal(err)
	}
	if wantRaw, err := both.Marshal(outlook.X64); err != nil || !bytes.Equal(raw, wantRaw) {
		t.Errorf("%x, want %x, %v", raw, wantRaw, err)
	}
	// The foreign octets stand in ours as they were, but for one octet of marks.
	body := bytes.TrimRight(before[20:], "\x00")
	at := bytes.LastIndex(raw, body[:16]) // ours begins alike, and stands in front
	if at < 0 || at+len(body) > len(raw) {
		t.Fatalf("foreign settings are gone: %x", raw)
	}
	differ := 0
	for i, b := range body {
		if raw[at+i] != b {
			differ++
		}
	}
	if differ != 1 {
		t.Errorf("%d octets of the foreign settings differ, want 1", differ)
	}
	if flags, _, err := k.GetBinaryValue("00030354"); err != nil || !bytes.Equal(flags, []byte{2, 0, 1, 0}) {
		t.Errorf("flags %x, %v", flags, err)
	}
	if err := list[0].Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if raw, _, err = k.GetBinaryValue("11020355"); err != nil || !bytes.Equal(raw, before) {
		t.Errorf("after Undo %x, %v", raw, err)
	}
}

// TestOutlookNew: it is found where the person has switched to it, and left alone.
func TestOutlookNew(t *testing.T) {
	openOutlook(t)
	p := programNamed(t, "outlook-new")
	if list, err := p.Accounts(t.Context(), outlookMailbox); err != nil || len(list) != 0 {
		t.Fatalf("%d accounts, %v", len(list), err)
	}
	plantNumber(t, outlookKey+`\Preferences`, "UseNewOutlook", 1)
	list, err := p.Accounts(t.Context(), outlookMailbox)
	if err != nil || len(list) != 1 || len(list[0].Info().Fixed) != 7 {
		t.Fatalf("%d accounts, %v", len(list), err)
	}
}

func programNamed(t *testing.T, name string) platform.MailProgram {
	t.Helper()
	for _, p := range platform.MailPrograms(platform.MailOptions{}) {
		if p.Name() == name {
			return p
		}
	}
	t.Fatalf("no %s here", name)
	return nil
}

// runsAsOutlook runs this test program under Outlook's name until it is stopped.
func runsAsOutlook(t *testing.T) (stop func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(platform.TempDir(t), "OUTLOOK.EXE")
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-test.run=^TestSleepsAsOutlook$")
	cmd.Env = append(os.Environ(), "TEST_AS_OUTLOOK=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// TestSleepsAsOutlook is what runs under Outlook's name.
func TestSleepsAsOutlook(*testing.T) {
	if os.Getenv("TEST_AS_OUTLOOK") != "" {
		time.Sleep(5 * time.Minute)
	}
}

func plantKey(t *testing.T, root registry.Key, key string) registry.Key {
	t.Helper()
	k, _, err := registry.CreateKey(root, key, registry.SET_VALUE)
	if err != nil {
		t.Fatalf("create %s: %v", key, err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func plantText(t *testing.T, root registry.Key, key, name, value string) {
	t.Helper()
	if err := plantKey(t, root, key).SetStringValue(name, value); err != nil {
		t.Fatal(err)
	}
}

func plantBinary(t *testing.T, key, name string, value []byte) {
	t.Helper()
	if err := plantKey(t, registry.CURRENT_USER, key).SetBinaryValue(name, value); err != nil {
		t.Fatal(err)
	}
}

func plantNumber(t *testing.T, key, name string, value uint32) {
	t.Helper()
	if err := plantKey(t, registry.CURRENT_USER, key).SetDWordValue(name, value); err != nil {
		t.Fatal(err)
	}
}

func removeTree(t *testing.T, root registry.Key, key string) {
	t.Helper()
	k, err := registry.OpenKey(root, key, registry.ENUMERATE_SUB_KEYS)
	if err != nil {
		return
	}
	names, _ := k.ReadSubKeyNames(-1)
	_ = k.Close()
	for _, name := range names {
		removeTree(t, root, key+`\`+name)
	}
	if err := registry.DeleteKey(root, key); err != nil && !errors.Is(err, registry.ErrNotExist) {
		t.Errorf("delete %s: %v", key, err)
	}
}

// dumpTree is a key of the user's with all below it, without the values of these names.
func dumpTree(t *testing.T, key string, without []string) []byte {
	t.Helper()
	k, err := registry.OpenKey(registry.CURRENT_USER, key, registry.ENUMERATE_SUB_KEYS|registry.QUERY_VALUE)
	if err != nil {
		return nil
	}
	defer func() { _ = k.Close() }()
	lines := []string{key}
	names, err := k.ReadValueNames(-1)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		data := make([]byte, 4096)
		n, kind, err := k.GetValue(name, data)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(without, name) {
			lines = append(lines, fmt.Sprintf("%s %d %x", name, kind, data[:n]))
		}
	}
	children, err := k.ReadSubKeyNames(-1)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(children)
	for _, child := range children {
		lines = append(lines, string(dumpTree(t, key+`\`+child, without)))
	}
	return []byte(strings.Join(lines, "\n"))
}
