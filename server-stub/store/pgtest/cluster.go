// Package pgtest runs a real PostgreSQL for a test: a cluster of its own in a
// temporary folder, as an unprivileged user, gone when the test ends.
package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// requireAll is the variable that makes a missing PostgreSQL a failure.
const requireAll = "SMIME_AGENT_REQUIRE"

// Cluster is a PostgreSQL server that listens on a socket and on the loopback.
type Cluster struct {
	// Password is that of the user smime, who needs it on the loopback only.
	Password string
	// Addr is host:port of the loopback.
	Addr string

	dir, bin string
	port     string
}

// start and stop are how long the programs may take on a busy machine.
const programTime = 2 * time.Minute

// Start makes a cluster of the test's own and runs it. It skips the test where
// PostgreSQL is not installed, or fails it where everything must be.
func Start(t testing.TB) *Cluster {
	t.Helper()
	return start(t, t.Cleanup)
}

// shared is the cluster of all tests that stop none.
var shared struct {
	mu      sync.Mutex
	cluster *Cluster
	ends    []func()
}

// Shared is [Start] for tests that do not stop the cluster: they share one, which
// [Main] ends.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster == nil {
		shared.cluster = start(t, func(end func()) { shared.ends = append(shared.ends, end) })
	}
	return shared.cluster
}

// Main runs a package's tests and ends what they shared; it gives the exit code.
func Main(m *testing.M) int {
	code := m.Run()
	for _, end := range slices.Backward(shared.ends) {
		end()
	}
	return code
}

func start(t testing.TB, cleanup func(func())) *Cluster {
	t.Helper()
	c := &Cluster{Password: rand.Text(), bin: programs(t)}
	dir, err := os.MkdirTemp("", "pgtest-")
	if err != nil {
		t.Fatal(err)
	}
	cleanup(func() { _ = os.RemoveAll(dir) })
	c.dir = dir
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(c.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := own(dir, secret); err != nil {
		t.Fatal(err)
	}
	c.mustRun(t, "initdb", "-D", c.data(), "-U", "smime", "-E", "UTF8", "--no-locale", "--no-instructions",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile="+secret)
	c.Addr = free(t)
	_, c.port, _ = net.SplitHostPort(c.Addr)
	cleanup(c.stop) // before it begins: one that begins too late for us must end too
	c.Begin(t)
	return c
}

func programs(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		if os.Getenv(requireAll) == "1" {
			t.Fatalf("PostgreSQL is missing, and %s=1 says that it must not be", requireAll)
		}
		t.Skip("SKIP: PostgreSQL is missing (Debian: apt-get install postgresql)")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1])
}

// The ports of clusters lie below those that the system hands out by itself (Linux:
// 32768 to 60999), or a connection of somebody else's could take the port of a
// cluster that is stopped for a while.
const firstPort, lastPort = 12000, 32000

func free(t testing.TB) string {
	t.Helper()
	var lc net.ListenConfig
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+mathrand.IntN(lastPort-firstPort))) //nolint:gosec // guards nothing
		if l, err := lc.Listen(t.Context(), "tcp", addr); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// Begin starts the server, at first or after [Cluster.Halt].
func (c *Cluster) Begin(t testing.TB) {
	t.Helper()
	options := fmt.Sprintf("-c listen_addresses=127.0.0.1 -c port=%s -c unix_socket_directories=%s -c max_connections=200", c.port, c.dir)
	c.mustRun(t, "pg_ctl", "-D", c.data(), "-l", filepath.Join(c.dir, "log"), "-o", options, "-w", "-t", "100", "start")
}

// Halt stops the server at once, as a crash would: it recovers when it begins again.
func (c *Cluster) Halt(t testing.TB) {
	t.Helper()
	c.mustRun(t, "pg_ctl", "-D", c.data(), "-m", "immediate", "-w", "stop")
}

func (c *Cluster) stop() {
	_, _ = c.run(context.Background(), "pg_ctl", "-D", c.data(), "-m", "immediate", "-w", "stop")
}

// Database makes an empty database and gives its DSN over the socket.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	name := "db" + strings.ToLower(rand.Text())
	c.Exec(t, c.DSN("postgres"), "create database "+name)
	return c.DSN(name)
}

// Env tells a child of the test of the cluster; see [FromEnv].
func (c *Cluster) Env() string { return mark + "=" + c.dir + " " + c.port }

const mark = "PGTEST_CLUSTER"

// FromEnv gives the cluster that a parent runs for this process; nil if none does.
func FromEnv() *Cluster {
	dir, port, ok := strings.Cut(os.Getenv(mark), " ")
	if !ok {
		return nil
	}
	return &Cluster{dir: dir, port: port, Addr: net.JoinHostPort("127.0.0.1", port)}
}

// DSN is that of a database over the socket.
func (c *Cluster) DSN(database string) string {
	return fmt.Sprintf("host=%s port=%s user=smime dbname=%s", c.dir, c.port, database)
}

// Over is the DSN of the same database at another address, where the password is asked for.
func (c *Cluster) Over(t testing.TB, dsn, addr string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("host=%s port=%s user=smime dbname=%s", host, port, NameOf(t, dsn))
}

// NameOf gives the name of the database.
func NameOf(t testing.TB, dsn string) string {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return config.Database
}

// Exec runs one statement.
func (c *Cluster) Exec(t testing.TB, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), sql)
	_ = conn.Close(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// File is where the cluster's user may write one.
func (c *Cluster) File(name string) string { return filepath.Join(c.dir, name) }

// Tool runs one of PostgreSQL's programs, such as pg_dump.
func (c *Cluster) Tool(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	return c.mustRun(t, name, args...)
}

func (c *Cluster) mustRun(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	out, err := c.run(t.Context(), name, args...)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
		t.Fatalf("%s: %v\n%s\n%s", name, err, out, log)
	}
	return out
}

// servant is who runs the cluster where the test is root's.
func servant() (*user.User, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return user.Lookup("nobody")
	}
	return u, nil
}

// own gives files to the servant.
func own(paths ...string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := servant()
	if err != nil {
		return err
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	err = errors.Join(uidErr, gidErr)
	for _, path := range paths {
		if err == nil {
			err = os.Chown(path, uid, gid)
		}
	}
	return err
}

// run runs a program as the cluster's user: PostgreSQL refuses to be run by root.
// What it says goes to a file, which a server that it leaves behind may keep open.
func (c *Cluster) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	said, err := os.CreateTemp(c.dir, "said-")
	if err != nil {
		return nil, err
	}
	line := append([]string{filepath.Join(c.bin, name)}, args...)
	if os.Geteuid() == 0 {
		u, err := servant()
		if err != nil {
			return nil, err
		}
		line = append([]string{"setpriv", "--reuid=" + u.Uid, "--regid=" + u.Gid, "--clear-groups"}, line...)
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...) //nolint:gosec // programs of the system
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, said, said
	err = cmd.Run()
	out, readErr := os.ReadFile(said.Name())
	_ = said.Close()
	if readErr != nil {
		return nil, readErr
	}
	return bytes.TrimSpace(out), err
}
