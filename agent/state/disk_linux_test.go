package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"smime-agent/agent/enroll"
	"smime-agent/platform/platformtest"
)

// A file system of its own that is really full, and has room again.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	mounted := syscall.Mount("state-test", dir, "tmpfs", 0, "size=256k,mode=0700")
	platformtest.Need(t, fmt.Sprintf("the right to mount a file system (%v)", mounted), mounted == nil)
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "agent.db")
	d, _ := mustOpen(t, path)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 96<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	saved := 0
	var err error
	for saved < 1000 {
		if err = d.save(sample(saved)); err != nil {
			break
		}
		saved++
	}
	wantRecordFailed(t, err, syscall.ENOSPC)
	for range 20 { // it stays full: an error each time, and nothing gets lost
		wantRecordFailed(t, d.save(sample(saved)), syscall.ENOSPC)
	}
	wantSaved(t, d, saved)
	mustClose(t, d)
	d, opened := mustOpen(t, path) // a restart on the full disk
	if opened.Damaged {
		t.Errorf("opened = %+v", opened)
	}
	wantSaved(t, d, saved)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := d.save(sample(saved)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	wantSaved(t, d, saved+1)
}

// A full disk where the record is to be made: an error, and success later.
func TestDiskFullAtCreation(t *testing.T) {
	dir := t.TempDir()
	mounted := syscall.Mount("state-test", dir, "tmpfs", 0, "size=16k,mode=0700")
	platformtest.Need(t, fmt.Sprintf("the right to mount a file system (%v)", mounted), mounted == nil)
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "agent.db")
	if _, _, err := Open(path, Options{Now: now}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Open on a full disk: %v", err)
	}
	if err := syscall.Mount("state-test", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	d, opened := mustOpen(t, path)
	if opened.Damaged {
		t.Errorf("opened = %+v", opened)
	}
	if err := d.save(sample(1)); err != nil {
		t.Error(err)
	}
}

// The n-th call fails, for every n: write, sync, and with them their errors.
// strace makes the kernel answer with the error instead of doing the work.
func TestFailingCalls(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed:", err)
	}
	for _, c := range []struct{ call, errno, andOn string }{
		{"pwrite64", "EIO", ""}, {"pwrite64", "ENOSPC", ""}, {"fdatasync", "EIO", ""}, {"ftruncate", "ENOSPC", ""},
		{"pwrite64", "ENOSPC", "+"}, {"fdatasync", "EIO", "+"}, // from then on all of them
	} {
		t.Run(c.call+" "+c.errno+c.andOn, func(t *testing.T) { failCalls(t, c.call, c.errno, c.andOn) })
	}
}

// failCalls counts n up until a run has no failure. strace counts the calls of
// each thread by itself, so not every n hits another call.
func failCalls(t *testing.T, call, errno, andOn string) {
	const saves = 6
	step := 3
	if os.Getenv(allEnv) != "" {
		step = 1
	}
	for n := 1 + rand.IntN(step); n < 200; n += step {
		path := filepath.Join(t.TempDir(), "agent.db")
		inject := fmt.Sprintf("inject=%s:error=%s:when=%d%s", call, errno, n, andOn)
		lines := output(t, command(t.Context(), path, fmt.Sprint(saves), "strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call, "-e", inject))
		saved, failed := 0, 0
		for _, l := range lines {
			switch {
			case strings.HasPrefix(l, "saved "):
				saved++
			case strings.HasPrefix(l, "failed ") && strings.Contains(l, string(enroll.CodeRecordFailed)):
				failed++
			case strings.HasPrefix(l, "open failed:"):
				failed++
			default:
				t.Fatalf("n=%d: %s", n, l)
			}
		}
		if (andOn == "" && saved == 0 && failed > 1) || saved+failed < 1 {
			t.Fatalf("n=%d: %d saved, %d failed: a bad call must cost no more than its save\n%s", n, saved, failed, strings.Join(lines, "\n"))
		}
		verify(t, path, saved-1)
		if failed == 0 {
			if n <= step {
				t.Skip("the call is not used on this system, or the injection does not work")
			}
			t.Logf("a run without a failure at n=%d", n)
			return
		}
	}
	t.Error("no run went through")
}

// A start on a file system that is read-only, and another one when it is writable again.
func TestReadOnlyForAWhile(t *testing.T) {
	dir := t.TempDir()
	mounted := syscall.Mount("state-test", dir, "tmpfs", 0, "size=1m,mode=0700")
	platformtest.Need(t, fmt.Sprintf("the right to mount a file system (%v)", mounted), mounted == nil)
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "agent.db")
	d, _ := mustOpen(t, path)
	if err := d.save(sample(0)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	if err := syscall.Mount("state-test", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=1m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(path, Options{Now: now}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Open on a read-only file system: %v", err)
	}
	if err := syscall.Mount("state-test", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	d, opened := mustOpen(t, path)
	if opened.Damaged {
		t.Errorf("opened = %+v", opened)
	}
	wantSaved(t, d, 1)
}

func wantRecordFailed(t *testing.T, err, cause error) {
	t.Helper()
	e, ok := errors.AsType[*enroll.Error](err)
	if !ok || e.Kind != enroll.Transient || e.Code != enroll.CodeRecordFailed || !errors.Is(err, cause) {
		t.Fatalf("error = %v, want record-failed for %v", err, cause)
	}
}

func wantSaved(t *testing.T, d *DB, n int) {
	t.Helper()
	es, err := d.Load()
	if err != nil || len(es) != n {
		t.Errorf("%d enrollments, %v; want %d", len(es), err, n)
	}
}
