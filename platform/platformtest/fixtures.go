package platformtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"smime-agent/platform"
)

// NSS is a home folder whose NSS database is ready for certutil and for
// [platform.Stores].
type NSS struct {
	// Home goes to [platform.StoreOptions], Dir is ~/.pki/nssdb in it.
	Home, Dir string
	// PasswordFile is for certutil -f and cmsutil -f.
	PasswordFile string
	Password     string
}

// NSSDir makes a home folder with an NSS database of that password, which may
// be empty. certutil makes it, not our code.
func NSSDir(t testing.TB, password string) NSS {
	t.Helper()
	NeedPrograms(t, "certutil")
	NeedFile(t, "NSS's softoken", "/usr/lib/*-linux-gnu/libsoftokn3.so", "/usr/lib/*-linux-gnu/nss/libsoftokn3.so", "/usr/lib64/libsoftokn3.so")
	home := t.TempDir()
	n := NSS{Home: home, Dir: filepath.Join(home, ".pki", "nssdb"), Password: password, PasswordFile: filepath.Join(home, "password")}
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.PasswordFile, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "certutil", "-N", "-d", "sql:"+n.Dir, "-f", n.PasswordFile)
	return n
}

// Token is a PKCS #11 token that is set up.
type Token struct {
	Module platform.Module
	PIN    string
}

// AskPIN answers with the token's PIN and fails the test when it was wrong.
func (k Token) AskPIN(t testing.TB) platform.PINFunc {
	return func(_ context.Context, store string, retry bool) (string, error) {
		if retry {
			t.Errorf("store %s refused the right PIN", store)
			return "", platform.ErrLocked
		}
		return k.PIN, nil
	}
}

// SoftHSM makes a SoftHSM token for this test. It sets SOFTHSM2_CONF, which
// the programs that the test starts inherit.
func SoftHSM(t *testing.T) Token {
	t.Helper()
	NeedPrograms(t, "softhsm2-util")
	module := NeedFile(t, "SoftHSM's module", "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	text := "directories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	k := Token{Module: platform.Module{Path: module, TokenLabel: "smime-test"}, PIN: "648219"}
	run(t, "softhsm2-util", "--init-token", "--free", "--label", k.Module.TokenLabel, "--so-pin", "87654321", "--pin", k.PIN)
	return k
}

// tpm is the one software TPM of this process; see [StartTPM].
var tpm = struct {
	sync.Once
	env   map[string]string
	token Token
	// alive holds the daemons' standard input open; were it collected, they would end.
	alive io.Closer
	err   error
}{}

// StartTPM gives a token of tpm2-pkcs11 on a software TPM behind a resource
// manager (without one the TPM runs out of object contexts). It sets the
// variables that the module needs; programs that the test starts inherit them.
//
// The TPM is the same for all tests of a process and ends with it, not with
// the test: the module holds a connection to the message bus for as long as
// the process lives, and GDBus ends the process when that bus goes away.
func StartTPM(t *testing.T) Token {
	t.Helper()
	NeedPrograms(t, "swtpm", "tpm2-abrmd", "tpm2_ptool", "dbus-daemon", "sh")
	module := NeedFile(t, "the TPM's module", "/usr/lib/*-linux-gnu/libtpm2_pkcs11.so.1", "/usr/lib/*-linux-gnu/pkcs11/libtpm2_pkcs11.so", "/usr/lib64/pkcs11/libtpm2_pkcs11.so")
	tpm.Do(func() { tpm.token, tpm.env, tpm.err = startTPM(module) })
	if tpm.err != nil {
		t.Fatalf("start software TPM: %v", tpm.err)
	}
	for name, value := range tpm.env {
		t.Setenv(name, value)
	}
	return tpm.token
}

// tpmScript runs the three daemons until its standard input ends, which it
// does with this process, however that ends. They are stopped by their IDs.
const tpmScript = `
dir=$1 port=$2 control=$3 swtpm=$4 abrmd=$5 dbus=$6
"$dbus" --session --nofork --address="unix:path=$dir/bus" & bus=$!
"$swtpm" socket --tpm2 --tpmstate dir="$dir/state" --server type=tcp,bindaddr=127.0.0.1,port="$port" \
  --ctrl type=tcp,bindaddr=127.0.0.1,port="$control" --flags not-need-init,startup-clear & tpm=$!
n=0
until [ -S "$dir/bus" ] || [ $n -ge 100 ]; do sleep 0.1; n=$((n+1)); done
sleep 0.3
DBUS_SESSION_BUS_ADDRESS="unix:path=$dir/bus" "$abrmd" --allow-root --session \
  --tcti="swtpm:host=127.0.0.1,port=$port" & rm=$!
cat
kill $rm $tpm $bus
wait
rm -rf "$dir"
`

func startTPM(module string) (Token, map[string]string, error) {
	dir, err := os.MkdirTemp("", "smime-tpm-") // not the test's: it lives as long as the process
	if err != nil {
		return Token{}, nil, err
	}
	for _, sub := range []string{"state", "store"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return Token{}, nil, err
		}
	}
	port, control, err := twoPorts()
	if err != nil {
		return Token{}, nil, err
	}
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return Token{}, nil, err
	}

	daemons := exec.Command("sh", "-c", tpmScript, "sh", dir, port, control, program("swtpm"), program("tpm2-abrmd"), program("dbus-daemon"))
	daemons.Stdout, daemons.Stderr = logFile, logFile
	if tpm.alive, err = daemons.StdinPipe(); err != nil { // the end of the process closes it
		return Token{}, nil, err
	}
	if err := daemons.Start(); err != nil {
		return Token{}, nil, err
	}
	env := map[string]string{
		"DBUS_SESSION_BUS_ADDRESS": "unix:path=" + filepath.Join(dir, "bus"),
		"TPM2_PKCS11_TCTI":         "tabrmd:bus_type=session",
		"TPM2TOOLS_TCTI":           "tabrmd:bus_type=session",
		"TPM2_PKCS11_STORE":        filepath.Join(dir, "store"),
		"TPM2_PKCS11_LOG_LEVEL":    "0",
		"TSS2_LOG":                 "all+NONE",
	}
	token := Token{Module: platform.Module{Path: module, TokenLabel: "smime"}, PIN: "tpm-user-pin"}
	return token, env, setUpTPM(dir, token, env)
}

// setUpTPM makes the token, waiting for the resource manager to answer.
func setUpTPM(dir string, token Token, env map[string]string) error {
	ptool := func(args ...string) error {
		cmd := exec.Command(program("tpm2_ptool"), args...)
		cmd.Env = os.Environ()
		for name, value := range env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("tpm2_ptool %s: %w: %s", args[0], err, out)
		}
		return nil
	}
	err := errors.New("no attempt")
	for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		err = ptool("init")
	}
	if err == nil {
		err = ptool("addtoken", "--pid=1", "--label="+token.Module.TokenLabel, "--sopin=tpm-so-pin", "--userpin="+token.PIN)
	}
	if err != nil {
		return errors.Join(err, logOf(dir))
	}
	return nil
}

func logOf(dir string) error {
	f, err := os.Open(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	return errors.Join(err, errors.New("the daemons said: "+strings.TrimSpace(string(text))))
}

// twoPorts finds two free ports; swtpm's clients expect the control port right
// after the other.
func twoPorts() (port, control string, err error) {
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		first, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return "", "", errors.Join(errors.New("no TCP address"), l.Close())
		}
		next, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first.Port+1))
		if err == nil {
			err = next.Close()
		}
		if e := errors.Join(err, l.Close()); e == nil {
			return fmt.Sprint(first.Port), fmt.Sprint(first.Port + 1), nil
		}
	}
	return "", "", errors.New("no two free ports in a row")
}
