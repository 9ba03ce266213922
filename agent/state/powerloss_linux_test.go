package state

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/platform/platformtest"
)

// TestPowerLoss is case F2 for the record: whatever of the unsynced writes
// reached the disk, and in whatever order, the record opens as sound, and has
// what was acknowledged. A record with a tear would heal, but bbolt leaves none,
// and damage that was none would cost a comparison with everybody's stores.
func TestPowerLoss(t *testing.T) {
	platformtest.NeedPrograms(t, "strace")
	perCall, seed := 1, rand.Uint64()
	if os.Getenv(allEnv) != "" {
		perCall = 12
	}
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	log, root := filepath.Join(dir, "strace"), filepath.Join(dir, "state")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	output(t, command(t.Context(), filepath.Join(root, "agent.db"), lifeMode, platformtest.RecordWrites(log)...))
	written, err := platformtest.ReadWriteLog(log)
	if err != nil {
		t.Fatal(err)
	}
	p := platformtest.PowerLoss{Log: written, Root: root, PerCall: perCall, Random: rand.New(rand.NewPCG(seed, 0))}
	whole := 0
	n, err := p.Each(func(c platformtest.Crash) error {
		kept, err := survivePowerLoss(c)
		whole = max(whole, kept)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if n < 300 || whole != 4 && !t.Failed() {
		t.Errorf("%d states, at most %d enrollments: the test hits nothing", n, whole)
	}
	t.Logf("%d states of the disk", n)
}

// survivePowerLoss opens the record of a crash and gives how many enrollments it has.
func survivePowerLoss(c platformtest.Crash) (int, error) {
	dir, err := os.MkdirTemp(memory(), "smime-crash-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := c.Put(dir); err != nil {
		return 0, err
	}
	d, opened, err := Open(filepath.Join(dir, "agent.db"), Options{Now: now, LockTimeout: 100 * time.Millisecond})
	if err != nil {
		return 0, fmt.Errorf("it does not open: %w", err)
	}
	defer d.Close()
	if opened.Damaged {
		return 0, fmt.Errorf("damaged: %+v", opened)
	}
	es, err := d.Load()
	if err != nil {
		return 0, err
	}
	pending, err := d.Pending(0)
	if err != nil {
		return 0, err
	}
	if err := acknowledged(c, es, pending); err != nil {
		return len(es), err
	}
	return len(es), d.save(sample(99)) // it goes on
}

// memory is where a file system costs no disk, if there is such a place.
func memory() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// acknowledged holds the record to what the child said.
func acknowledged(c platformtest.Crash, es []enroll.Enrollment, pending []AuditEvent) error {
	has := map[string]enroll.State{}
	for _, e := range es {
		has[string(e.ID)] = e.State
	}
	told := map[string]bool{}
	for _, p := range pending {
		told[p.ID] = true
	}
	forgotten := map[string]bool{}
	for _, s := range c.Said { // latest words count for events
		if f := strings.Fields(s.Text); len(f) == 2 && f[0] == "forgetting" {
			forgotten[f[1]] = true
		}
	}
	for _, s := range c.Said {
		switch f := strings.Fields(s.Text); {
		case len(f) == 3 && f[0] == "saved":
			if slices.Index(lifeOrder, has[f[1]]) < slices.Index(lifeOrder, enroll.State(f[2])) {
				return fmt.Errorf("I1: %s was acknowledged as %s and is %q", f[1], f[2], has[f[1]])
			}
		case len(f) == 2 && f[0] == "told" && !told[f[1]] && !forgotten[f[1]]:
			return fmt.Errorf("I1: the acknowledged event %s is gone", f[1])
		}
	}
	return nil
}
