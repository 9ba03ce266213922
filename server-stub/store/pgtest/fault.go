package pgtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// EndSessions breaks every connection of server-stub to a database, as an
// administrator does with pg_terminate_backend, and gives their number.
func (c *Cluster) EndSessions(t testing.TB, dsn string) (ended int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	err = conn.QueryRow(t.Context(), "select count(pg_terminate_backend(pid)) from pg_stat_activity "+
		"where datname = current_database() and application_name = 'server-stub'").Scan(&ended)
	if err != nil {
		t.Fatal(err)
	}
	return ended
}

// Restart stops the server as an administrator does, and starts it again.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	c.mustRun(t, "pg_ctl", "-D", c.data(), "-m", "fast", "-w", "stop")
	c.Begin(t)
}

// Freeze stops all of the server's processes where they are, as a machine does
// that is moved to another host, until the function that it gives is called.
func (c *Cluster) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	main, _, _ := strings.Cut(string(text), "\n")
	signal := func(name string) {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%s/task/%s/children", main, main))
		all := strings.Join(append([]string{main}, strings.Fields(string(children))...), " ")
		// One that ended meanwhile is no matter.
		_ = exec.CommandContext(context.WithoutCancel(t.Context()), "sh", "-c", "kill -s "+name+" "+all).Run() //nolint:gosec // processes of our own
	}
	signal("STOP")
	return func() { signal("CONT") }
}

// Standby makes a second server that follows this one, which waits for it with
// each commit from then on: nothing is acknowledged that only one of them has.
func (c *Cluster) Standby(t testing.TB) *Cluster {
	t.Helper()
	s := &Cluster{Password: c.Password, bin: c.bin}
	dir, err := os.MkdirTemp("", "pgtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if s.dir = dir; own(dir) != nil {
		t.Fatal("the folder of the standby cannot be given away")
	}
	s.Addr = free(t)
	_, s.port, _ = net.SplitHostPort(s.Addr)
	c.mustRun(t, "pg_basebackup", "-D", s.data(), "-h", c.dir, "-p", c.port, "-U", "smime", "-X", "stream", "-c", "fast", "-R")
	t.Cleanup(s.stop)
	s.Begin(t)
	c.Exec(t, c.DSN("postgres"), "alter system set synchronous_standby_names = '*'")
	c.reload(t)
	return s
}

// Promote has a standby take over. It is alone then, and waits for nobody.
func (c *Cluster) Promote(t testing.TB) {
	t.Helper()
	c.mustRun(t, "pg_ctl", "-D", c.data(), "-w", "promote")
	c.Exec(t, c.DSN("postgres"), "alter system set synchronous_standby_names = ''")
	c.reload(t)
}
