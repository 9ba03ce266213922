package state

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/enroll"
)

// The test binary is its own child: with this variable set it opens the record
// there and saves until it is killed.
const (
	childEnv = "STATE_TEST_CHILD" // path of the record
	modeEnv  = "STATE_TEST_MODE"  // "loop" or the number of saves
	killsEnv = "STATE_TEST_KILLS" // how many kills, 60 if unset
	allEnv   = "STATE_TEST_ALL"   // if set, flips and failing calls are tried without gaps
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(child(path, os.Getenv(modeEnv)))
	}
	os.Exit(m.Run())
}

// child saves enrollment after enrollment, goes on after an error, and says for
// each on standard output whether it was saved.
func child(path, mode string) int {
	d, opened, err := Open(path, Options{Now: time.Now, OutboxLimit: 1 << 20})
	if err != nil {
		fmt.Println("open failed:", err)
		return 3
	}
	if opened.Damaged {
		fmt.Println("damaged", opened.Cause)
	}
	old, err := d.Load()
	if err != nil {
		fmt.Println("load failed:", err)
		return 3
	}
	if mode == lifeMode {
		return live(d)
	}
	n := -1
	if mode != "loop" {
		n, _ = strconv.Atoi(mode)
	}
	for i := len(old); n != 0; i, n = i+1, n-1 {
		e := sample(i)
		prev := sample(max(0, i-1))
		prev.State = enroll.Active
		told := audit(enroll.Event{At: start, Code: enroll.EventSubmitted, Enrollment: e, Outcome: "success"})
		if err := d.Save([]enroll.Enrollment{e, prev}, told); err != nil {
			fmt.Printf("failed %d %s %v\n", i, enroll.AsError(err).Code, err)
			i--
			continue
		}
		fmt.Println("saved", i)
	}
	return 0
}

func command(ctx context.Context, path, mode string, before ...string) *exec.Cmd {
	args := append(before, os.Args[0], "-test.run=^$")
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Env = append(os.Environ(), childEnv+"="+path, modeEnv+"="+mode)
	return c
}

func TestKill(t *testing.T) {
	kills := 60
	if s := os.Getenv(killsEnv); s != "" {
		kills, _ = strconv.Atoi(s)
	}
	path := filepath.Join(t.TempDir(), "agent.db")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	acknowledged := -1
	for i := range kills {
		acknowledged = max(acknowledged, killOnce(t, path, rng))
		if i%50 == 49 { // start anew before a run takes long
			once(t, verify(t, path, acknowledged))
			path, acknowledged = filepath.Join(t.TempDir(), "agent.db"), -1
			continue
		}
		once(t, verify(t, path, acknowledged))
	}
}

func once(t *testing.T, repeated int) {
	t.Helper()
	if repeated != 0 {
		t.Errorf("%d events tell of what was told before", repeated)
	}
}

// killOnce lets a child save for a random time, kills it, and gives the number
// of its last acknowledged save.
func killOnce(t *testing.T, path string, rng *rand.Rand) int {
	t.Helper()
	c := command(t.Context(), path, "loop")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	// Counted from the start of the process, so that creation is hit too.
	timer := time.AfterFunc(time.Duration(rng.IntN(60))*time.Millisecond, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	last := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, ok := strings.CutPrefix(lines.Text(), "saved ")
		if !ok {
			t.Errorf("child: %s", lines.Text())
			continue
		}
		last, _ = strconv.Atoi(n)
	}
	_ = c.Wait() // killed
	return last
}

// verify holds the record against what was acknowledged, and gives how many of
// its events tell of what another one told already: none, unless a save failed
// although it had come to the disk.
func verify(t *testing.T, path string, acknowledged int) (repeated int) {
	t.Helper()
	d, opened := mustOpen(t, path)
	defer mustClose(t, d)
	es, err := d.Load()
	if err != nil || opened.Damaged {
		t.Fatalf("after the kill: %+v, %v", opened, err)
	}
	if len(es) <= acknowledged {
		t.Fatalf("%d enrollments, save %d was acknowledged", len(es), acknowledged)
	}
	told, err := d.Pending(0)
	if err != nil {
		t.Fatal(err)
	}
	events := map[enroll.ID]int{}
	for _, a := range told {
		events[a.Event.Enrollment.ID]++
	}
	if len(events) != len(es) {
		t.Fatalf("%d enrollments, but events of %d", len(es), len(events))
	}
	for i, e := range es {
		if e.ID != sample(i).ID || (i < len(es)-1 && e.State != enroll.Active) {
			t.Fatalf("enrollment %d is %s, %s", i, e.ID, e.State)
		}
		if events[e.ID] == 0 {
			t.Fatalf("no event tells of %s", e.ID)
		}
	}
	return len(told) - len(events)
}

// output runs a child to its end and gives what it said. A child that died of
// something else than its own exit code 0 or 3 is a failure.
func output(t *testing.T, c *exec.Cmd) []string {
	t.Helper()
	c.Stderr = os.Stderr
	out, err := c.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || e.ExitCode() != 3) {
		t.Fatalf("child: %v\n%s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
