package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"smime-agent/platform/platformtest"
)

// The test binary is its own child: with the first variable set it writes the
// records there, and what it acknowledges into the file of the second.
const (
	diskPath = "STORE_TEST_CHILD"
	diskTold = "STORE_TEST_TOLD"
	diskAll  = "STORE_TEST_ALL" // if set, every call fails and every state is looked at
)

const diskWrites = 12

// TestDiskChild is the child's part. As a test of its own it has nothing to do.
func TestDiskChild(t *testing.T) {
	path := os.Getenv(diskPath)
	if path == "" {
		return
	}
	told, err := os.OpenFile(os.Getenv(diskTold), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenBolt(path)
	if err != nil {
		_, _ = fmt.Fprintln(told, "not opened", strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	for n := range diskWrites {
		// As an issuance is: several buckets at once, and one record that is replaced.
		err := b.Update(context.Background(), func(tx Tx) error {
			return errors.Join(
				tx.Put(Certificates, diskKey(n), append(diskKey(n), make([]byte, 1300)...)),
				tx.Put(Enrollments, diskKey(n), diskKey(n)),
				tx.Put(Meta, []byte("last"), diskKey(n)))
		})
		if err != nil {
			_, _ = fmt.Fprintln(told, "failed", n, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		_, _ = fmt.Fprintln(told, "kept", n)
	}
	if err := b.Close(); err != nil {
		_, _ = fmt.Fprintln(told, "not closed", err)
	}
}

func diskKey(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// writeDisk runs the child to its end and gives what it said.
func writeDisk(t *testing.T, path, told string, before ...string) []string {
	t.Helper()
	args := append(before, os.Args[0], "-test.run=^TestDiskChild$")
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), diskPath+"="+path, diskTold+"="+told)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(raw)), "\n")
}

// checkDisk opens the records: sound, with all that was acknowledged, each
// transaction as a whole, and one more can be written.
func checkDisk(path string, lines []string) error {
	last := -1
	for _, l := range lines {
		if n, ok := strings.CutPrefix(l, "kept "); ok {
			last, _ = strconv.Atoi(n)
		}
	}
	if _, err := os.Stat(path); err == nil && last >= 0 {
		if err := CheckBolt(path); err != nil {
			return err
		}
	}
	b, err := OpenBolt(path)
	if err != nil {
		return err
	}
	err = b.View(func(tx Tx) error {
		for _, l := range lines {
			if n, ok := strings.CutPrefix(l, "kept "); ok {
				n, _ := strconv.Atoi(n)
				if tx.Get(Certificates, diskKey(n)) == nil || tx.Get(Enrollments, diskKey(n)) == nil {
					return fmt.Errorf("I1: write %d was acknowledged and is gone", n)
				}
			}
		}
		for n := range diskWrites {
			if (tx.Get(Certificates, diskKey(n)) == nil) != (tx.Get(Enrollments, diskKey(n)) == nil) {
				return fmt.Errorf("write %d is there by half", n)
			}
		}
		if at := tx.Get(Meta, []byte("last")); last >= 0 && (at == nil || binary.BigEndian.Uint64(at) < uint64(last)) {
			return fmt.Errorf("I1: the last write was %d, the record says %x", last, at)
		}
		return nil
	})
	again := b.Update(context.Background(), func(tx Tx) error { return tx.Put(Meta, []byte("again"), []byte("x")) })
	return errors.Join(err, again, b.Close())
}

// TestStoreCallsFail is case F3: the n-th write, sync or growth of the file fails,
// once or from then on.
func TestStoreCallsFail(t *testing.T) {
	platformtest.NeedPrograms(t, "strace")
	step := 4
	if os.Getenv(diskAll) != "" {
		step = 1
	}
	for _, c := range []struct{ call, errno, andOn string }{
		{"pwrite64", "ENOSPC", ""}, {"pwrite64", "EIO", "+"}, {"fdatasync", "EIO", ""}, {"fdatasync", "EIO", "+"}, {"ftruncate", "ENOSPC", ""},
	} {
		t.Run(c.call+" "+c.errno+c.andOn, func(t *testing.T) {
			t.Parallel()
			hits := 0
			for n := 1; n < 200; n += 1 + rand.IntN(step) {
				dir := t.TempDir()
				path := filepath.Join(dir, "records.db")
				lines := writeDisk(t, path, filepath.Join(dir, "told"), "strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace="+c.call,
					"-e", fmt.Sprintf("inject=%s:error=%s:when=%d%s", c.call, c.errno, n, c.andOn))
				failed := 0
				for _, l := range lines {
					if !strings.HasPrefix(l, "kept ") {
						failed++
					}
				}
				if err := checkDisk(path, lines); err != nil {
					t.Fatalf("n=%d: %v\n%s", n, err, strings.Join(lines, "\n"))
				}
				if hits += failed; failed == 0 {
					break
				}
			}
			if hits == 0 {
				t.Error("nothing was hit")
			}
			t.Logf("%d writes failed", hits)
		})
	}
}

// TestStoreLosesPower is case F2.
func TestStoreLosesPower(t *testing.T) {
	platformtest.NeedPrograms(t, "strace")
	perCall, seed := 1, rand.Uint64()
	if os.Getenv(diskAll) != "" {
		perCall = 20
	}
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	root, log, told := filepath.Join(dir, "records"), filepath.Join(dir, "strace"), filepath.Join(dir, "told")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	writeDisk(t, filepath.Join(root, "records.db"), told, platformtest.RecordWrites(log)...)
	written, err := platformtest.ReadWriteLog(log)
	if err != nil {
		t.Fatal(err)
	}
	p := platformtest.PowerLoss{Log: written, Root: root, PerCall: perCall, Random: rand.New(rand.NewPCG(seed, 0))}
	n, err := p.Each(func(c platformtest.Crash) error {
		dir, err := os.MkdirTemp("", "smime-crash-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		var lines []string
		for _, s := range c.Said {
			if s.To == told {
				lines = append(lines, strings.TrimSpace(s.Text))
			}
		}
		return errors.Join(c.Put(dir), checkDisk(filepath.Join(dir, "records.db"), lines))
	})
	if err != nil {
		t.Error(err)
	}
	if n < 60 {
		t.Errorf("only %d states", n)
	}
	t.Logf("%d states of the disk", n)
}

// TestStoreOnAFullDisk fills a small file system under a store that is open.
func TestStoreOnAFullDisk(t *testing.T) {
	platformtest.Need(t, "being root", os.Getuid() == 0)
	dir := t.TempDir()
	err := syscall.Mount("store-test", dir, "tmpfs", 0, "size=1m,mode=0700")
	platformtest.Need(t, fmt.Sprintf("the right to mount a file system (%v)", err), err == nil)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	path := filepath.Join(dir, "records.db")
	b := open(t, path)
	put := func(n int) error {
		return b.Update(t.Context(), func(tx Tx) error { return tx.Put(Certificates, diskKey(n), make([]byte, 8000)) })
	}
	kept := 0
	for ; kept < 1000 && err == nil; kept++ {
		err = put(kept)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("after %d writes: %v", kept, err)
	}
	for range 20 { // it stays full, and nothing gets lost
		if err := put(kept); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("on a full disk: %v", err)
		}
	}
	if err := syscall.Mount("store-test", dir, "tmpfs", syscall.MS_REMOUNT, "size=8m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	if err := put(kept); err != nil {
		t.Errorf("with room again: %v", err)
	}
	for n := range kept - 1 {
		_ = b.View(func(tx Tx) error {
			if tx.Get(Certificates, diskKey(n)) == nil {
				t.Errorf("write %d is gone", n)
			}
			return nil
		})
	}
	if err := errors.Join(b.Close(), CheckBolt(path)); err != nil {
		t.Error(err)
	}
}
