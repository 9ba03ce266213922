//go:build linux

package e2e_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"smime-agent/platform"
)

// footprint is what the kernel has of a process, over all its threads.
type footprint struct {
	cpu time.Duration
	// switches are voluntary ones: how often a thread went to sleep, which is how
	// often it was woken.
	switches uint64
	// resident and dirty are bytes: what is in memory, and what of it is the
	// process's own.
	resident, dirty uint64
	threads         int
}

func footprintOf(pid int) (footprint, error) {
	var f footprint
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		return f, errors.Join(err, fmt.Errorf("process %d is gone", pid))
	}
	for _, task := range tasks {
		status, err := fields(filepath.Join(task, "status"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread ended just now
		}
		if err != nil {
			return f, err
		}
		// Nanoseconds on the CPU come first (kernel, Documentation/scheduler/sched-stats.rst).
		sched, err := os.ReadFile(filepath.Join(task, "schedstat"))
		if err != nil {
			return f, err
		}
		on, _, _ := strings.Cut(string(sched), " ")
		ns, err := strconv.ParseInt(on, 10, 64)
		if err != nil {
			return f, err
		}
		f.cpu += time.Duration(ns)
		f.switches += status["voluntary_ctxt_switches"]
		f.threads++
	}
	rollup, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	f.resident, f.dirty = rollup["Rss"]*1024, rollup["Private_Dirty"]*1024
	return f, err
}

// fields reads the numbers of a file of lines such as "Rss: 1234 kB".
func fields(path string) (map[string]uint64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all := map[string]uint64{}
	for line := range strings.Lines(string(raw)) {
		name, rest, _ := strings.Cut(line, ":")
		words := strings.Fields(rest)
		if len(words) == 0 {
			continue
		}
		if n, err := strconv.ParseUint(words[0], 10, 64); err == nil {
			all[name] = n
		}
	}
	return all, nil
}

// syncTime is the median of appending 4 kB and fdatasync in the world's folder.
func (c *measured) syncTime() time.Duration {
	c.b.Helper()
	f, err := os.Create(filepath.Join(c.Dir, "fdatasync"))
	c.must(err)
	defer f.Close()
	var all []time.Duration
	for range 101 {
		began := time.Now()
		_, err := f.Write(make([]byte, 4096))
		c.must(err)
		c.must(syscall.Fdatasync(int(f.Fd())))
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// privateOperation is the median time of one private operation in the store: a
// signature by a key of the employee's. An enrollment has three: the request's
// signature, and a signature and a decryption as proof.
func (c *measured) privateOperation(ctx context.Context, name string) (time.Duration, bool) {
	c.b.Helper()
	stores, _ := platform.Stores(ctx, platform.StoreOptions{Home: c.Home(c.account)}) // those that cannot be opened are not asked for
	i := slices.IndexFunc(stores, func(s platform.Store) bool { return s.Info().Name == name })
	if i < 0 {
		return 0, false
	}
	keys, err := stores[i].Keys(ctx)
	c.must(err)
	key, err := stores[i].Open(ctx, keys[0].ID)
	c.must(err)
	defer func() { _ = key.Close() }()
	var all []time.Duration
	for range 31 {
		digest := sha256.Sum256([]byte(rand.Text()))
		began := time.Now()
		_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		c.must(err)
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all[len(all)/2], true
}
