package platform

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"smime-agent/platform/internal/win32"
)

// grant puts an access list on a file or folder.
func grant(t *testing.T, path, sddl string) {
	t.Helper()
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		t.Fatal(err)
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := windows.CreateFile(name, windows.WRITE_DAC, 0, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(h)
	// Not SetNamedSecurityInfo, which under Wine adds what is inherited.
	if err := windows.SetKernelObjectSecurity(h, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, sd); err != nil {
		t.Fatal(err)
	}
}

func mustSelf(t *testing.T) account {
	t.Helper()
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	return me
}

func TestPrivateDir(t *testing.T) {
	me := mustSelf(t)
	dir := filepath.Join(newDir(t), "a", "b")
	for _, when := range []string{"made", "found"} {
		if err := PrivateDir(dir); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		e, err := me.open(dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		if e.others != 0 || e.owner != me.sid {
			t.Errorf("%s: owner %s, others may 0x%x", when, e.owner, uint32(e.others))
		}
		if err := e.close(); err != nil {
			t.Error(err)
		}
		grant(t, dir, "D:P(A;OICI;FA;;;WD)") // somebody opened it; the next round must close it again
	}
}

func TestPrivateDirRefuses(t *testing.T) {
	dir := newDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.MkdirAll(filepath.Join(open, "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	grant(t, open, "D:P(A;OICI;FA;;;WD)")
	for name, path := range map[string]string{
		"a file": file, "below a file": filepath.Join(file, "x"), "below what others can exchange": filepath.Join(open, "below", "x"),
		"another machine": `\\server\share\x`, "a device": `\\.\C:\x`, "a stream": filepath.Join(dir, "x:y"),
	} {
		if err := PrivateDir(path); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v, want ErrDenied", name, err)
		}
	}
}

func TestPrivateDirRefusesLinks(t *testing.T) {
	dir := newDir(t)
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Skipf("SKIP: no links here: %v", err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().IsDir() {
		t.Skipf("SKIP: this system hides that a link is one: %v, %v", info, err) // Wine 8 does
	}
	if err := PrivateDir(link); !errors.Is(err, ErrDenied) {
		t.Errorf("a link: %v, want ErrDenied", err)
	}
	if err := PrivateDir(filepath.Join(link, "below")); err != nil {
		t.Errorf("below our own link: %v", err)
	}
}

func TestReadTrusted(t *testing.T) {
	dir := newDir(t)
	if err := PrivateDir(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	me := mustSelf(t)
	own := "D:P(A;;FA;;;" + me.sid + ")"
	for _, tt := range []struct {
		name, sddl string
		private    bool
		want       error
	}{
		{"own", own, true, nil},
		{"others read", own + "(A;;FR;;;WD)", false, nil},
		{"others write", own + "(A;;FRFW;;;WD)", false, ErrDenied},
	} {
		grant(t, path, tt.sddl)
		data, private, err := ReadTrusted(path, 100)
		if !errors.Is(err, tt.want) || err == nil && (private != tt.private || string(data) != "content") {
			t.Errorf("%s: %q, %t, %v", tt.name, data, private, err)
		}
	}
	grant(t, path, own)
	if _, _, err := ReadTrusted(path, 6); err == nil || errors.Is(err, ErrDenied) {
		t.Errorf("too long: %v", err)
	}
	for name, c := range map[string]struct {
		path string
		want error
	}{
		"nothing": {filepath.Join(dir, "nothing"), ErrNotFound}, "no way": {filepath.Join(dir, "no", "way"), ErrNotFound},
		"a folder": {dir, ErrDenied}, "another machine": {`\\server\share\file`, ErrDenied}, "a pipe": {`\\.\pipe\x`, ErrDenied},
	} {
		if _, _, err := ReadTrusted(c.path, 100); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestNoList: a missing list means that everybody may do everything.
func TestNoList(t *testing.T) {
	if _, err := win32.Grants(nil); err == nil {
		t.Error("no list was read as an empty one")
	}
	sd, err := windows.SecurityDescriptorFromString("D:(A;;FR;;;WD)(OA;;FA;;;WD)")
	if err != nil {
		t.Skipf("SKIP: this system makes no such list: %v", err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if grants, err := win32.Grants(dacl); err == nil {
		t.Errorf("an entry of an unknown kind was passed over: %v", grants)
	}
}

// TestForeignFolder needs a file and a folder of another account, which only the
// outside of Wine can make.
func TestForeignFolder(t *testing.T) {
	dir := os.Getenv("SMIME_AGENT_FOREIGN")
	if dir == "" {
		t.Skip("SKIP: SMIME_AGENT_FOREIGN names no folder of another account")
	}
	if err := PrivateDir(dir); !errors.Is(err, ErrDenied) {
		t.Errorf("another's folder: %v, want ErrDenied", err)
	}
	if err := PrivateDir(filepath.Join(dir, "below")); !errors.Is(err, ErrDenied) {
		t.Errorf("below another's folder: %v, want ErrDenied", err)
	}
	if _, _, err := ReadTrusted(filepath.Join(dir, "file"), 100); !errors.Is(err, ErrDenied) {
		t.Errorf("another's file: %v, want ErrDenied", err)
	}
}

func TestWithin(t *testing.T) {
	root := `C:\ProgramData\smime-agent`
	for path, want := range map[string]bool{
		root: true, `c:\programdata\SMIME-agent\state`: true, `C:\ProgramData\smime-agents`: false, `C:\ProgramData`: false, `D:\x`: false,
	} {
		if within(root, path) != want {
			t.Errorf("%s: %t", path, !want)
		}
	}
}

// TestPipeSecurity reads the access list of the system's service bit by bit: no
// test under Wine can be another user.
func TestPipeSecurity(t *testing.T) {
	sd, err := windows.SecurityDescriptorFromString(account{sidSystem}.pipeSecurity())
	if err != nil {
		t.Fatal(err)
	}
	owner, _, err := sd.Owner()
	if err != nil || owner.String() != sidSystem {
		t.Errorf("owner %v, %v", owner, err)
	}
	if control, _, err := sd.Control(); err != nil || control&windows.SE_DACL_PROTECTED == 0 {
		t.Errorf("control %x, %v", control, err)
	}
	text := sd.String()
	deny, allow := strings.Index(text, "(D;"), strings.Index(text, "(A;")
	if deny < 0 || deny > allow {
		t.Errorf("%s: what denies does not come first", text)
	}
	const createInstance = 0x4 // FILE_CREATE_PIPE_INSTANCE
	if pipeRights&(createInstance|windows.GENERIC_WRITE|windows.GENERIC_ALL|windows.WRITE_DAC|windows.WRITE_OWNER) != 0 {
		t.Errorf("clients may 0x%x", pipeRights)
	}
	if !strings.Contains(text, "(A;;0x12019b;;;IU)") || strings.Contains(text, "GW") {
		t.Error(text)
	}
}

// TestSquatters plants pipes that a client must not talk to, and names that the
// service must not share.
func TestSquatters(t *testing.T) {
	me := mustSelf(t)
	for name, sddl := range map[string]string{
		"others may answer":         "O:" + me.sid + "D:P(A;;GA;;;" + me.sid + ")(A;;GRGW;;;WD)",
		"it belongs to another":     "O:S-1-5-21-1-2-3-1001D:P(A;;GA;;;WD)",
		"it belongs to a everybody": "O:WDD:P(A;;GA;;;WD)",
	} {
		t.Run(name, func(t *testing.T) {
			address := pipePrefix + "smime-agent-squat-" + strings.ReplaceAll(name, " ", "-")
			l, err := winio.ListenPipe(address, &winio.PipeConfig{SecurityDescriptor: sddl})
			if err != nil {
				t.Skipf("SKIP: this system lets nobody make such a pipe: %v", err)
			}
			defer l.Close()
			go accept(l)
			if c, err := Dial(t.Context(), address); !errors.Is(err, ErrDenied) {
				t.Errorf("Dial: %v, %v, want ErrDenied", c, err)
			}
			if _, err := Listen(address); !errors.Is(err, ErrExists) {
				t.Errorf("Listen: %v, want ErrExists", err)
			} else {
				t.Log(err)
			}
		})
	}
}

func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
	}
}

// TestStrangers: an end that hides who it is gets no name.
func TestStrangers(t *testing.T) {
	if win32.Wine() {
		t.Skip("SKIP: Wine names a client whatever it allows")
	}
	address := pipePrefix + "smime-agent-strangers"
	l, err := Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := winio.DialPipeAccessImpLevel(ctx, address, pipeRights, winio.PipeImpLevelAnonymous)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	end, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	if p, err := PeerOf(end); !errors.Is(err, ErrDenied) {
		t.Errorf("an anonymous caller: %+v, %v, want ErrDenied", p, err)
	}
	if p, err := PeerOf(c); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a connection that is not ours: %+v, %v", p, err)
	}
}
