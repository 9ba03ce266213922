//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

// wineKills is how often service or helper are killed at a random moment while
// certificates are made and renewed.
const wineKills = 50

// campaign is the machine while it is killed.
type campaign struct {
	*windowsSession
	random    *rand.Rand
	mailboxes []string
	// shown is the furthest state that was seen of each enrollment.
	shown map[enroll.ID]enroll.State
}

// testRandomKills: nothing that was shown is taken back, nothing is made twice,
// and all is well again by itself.
func (s *windowsSession) testRandomKills(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := &campaign{windowsSession: s, random: rand.New(rand.NewPCG(seed, 0)), shown: map[enroll.ID]enroll.State{}}
	c.hire(wineKills/usesOfMailbox + 2)
	for i := range wineKills {
		if box := i / (usesOfMailbox - 1); i%2 == 0 && box < len(c.mailboxes) {
			_, _ = s.try("smime-agent.exe", "renew", c.mailboxes[box]) // refused while one is on its way
		}
		time.Sleep(time.Duration(c.random.IntN(1500)) * time.Millisecond)
		c.kill(c.random.IntN(8) == 0)
		if i%10 == 9 {
			c.settle()
		}
	}
	c.settle()
	c.judge()
}

// hire gives the account more mailboxes, about which nobody is asked.
func (c *campaign) hire(n int) {
	c.t.Helper()
	w := c.company
	for i := range n {
		box := fmt.Sprintf("box%02d@example.com", i)
		c.mailboxes = append(c.mailboxes, box)
		w.Employees = append(w.Employees, e2e.Employee{Account: w.Employees[0].Account, Mailbox: box, Given: "Alice", Surname: "Example"})
	}
	c.must(w.WritePolicy("silent"))
	w.central("policy", "apply")
	c.run("smime-agent.exe", "sync")
}

func (c *campaign) kill(helper bool) {
	c.t.Helper()
	if helper {
		_, _ = c.try("wineprobe.exe", "crash", "smime-helper.exe") // it may not be back from the last one
		return
	}
	pids := c.processes("smime-agent.exe")
	if len(pids) == 0 {
		c.t.Fatal("the service does not run")
	}
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	for deadline := time.Now().Add(winePatience); len(c.processes("smime-agent.exe")) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatal("the service outlived its end")
		}
	}
	c.run("smime-agent.exe", "service", "start")
}

// settle waits until every mailbox has its certificate and nothing is on its way.
func (c *campaign) settle() {
	c.t.Helper()
	r := c.awaitStatus("everything in order", func(r status.Report) bool {
		for _, box := range c.mailboxes {
			if !settled(box)(r) {
				return false
			}
		}
		return true
	})
	c.compare(r)
}

// compare says that nothing went back (I1), and that no mailbox has two (I2).
func (c *campaign) compare(r status.Report) {
	c.t.Helper()
	active := map[string]int{}
	there := map[enroll.ID]enroll.State{}
	for _, x := range r.Credentials {
		there[x.ID] = x.State
		if x.State == enroll.Active {
			active[x.Mailbox]++
		}
		if x.State == enroll.Over {
			c.t.Errorf("I1: %s ended without a certificate: %+v", x.ID, x.Problem)
		}
	}
	for id, before := range c.shown {
		if rank(there[id]) < rank(before) {
			c.t.Errorf("I1: %s was %s and is %q", id, before, there[id])
		}
	}
	for box, n := range active {
		if n != 1 {
			c.t.Errorf("I2: %s has %d active certificates", box, n)
		}
	}
	c.shown = there
}

// judge asks the store, the ledger and the disk, not the agent.
func (c *campaign) judge() {
	c.t.Helper()
	r := c.report()
	ledger := map[string][]string{} // serials by enrollment
	for _, e := range c.company.ledger() {
		ledger[e.Enrollment] = append(ledger[e.Enrollment], e.Serial)
	}
	var keys []struct {
		ID        enroll.ID
		Certified bool
	}
	c.must(json.Unmarshal([]byte(c.run("wineprobe.exe", "keys")), &keys))
	inStore := map[enroll.ID]bool{}
	for _, k := range keys {
		inStore[k.ID] = k.Certified
	}
	for _, x := range r.Credentials {
		if s := ledger[string(x.ID)]; len(s) != 1 || s[0] != x.Serial {
			c.t.Errorf("I2: %s has serial %s, the ledger %v", x.ID, x.Serial, s)
		}
		if !inStore[x.ID] {
			c.t.Errorf("I1: %s (%s) has no certified key in the store", x.ID, x.State)
		}
		if x.State == enroll.Active && !x.Proof.OK() {
			c.t.Errorf("I3: %s is not proved: %+v", x.ID, x.Proof)
		}
		delete(inStore, x.ID)
	}
	for id := range inStore {
		c.t.Errorf("I2: the key %s has no record", id)
	}
	c.disk()
	c.t.Logf("after %d kills: %d credentials, %d keys", wineKills, len(r.Credentials), len(keys))
}

// mostOnDisk is far above what a day of this leaves, in bytes.
const mostOnDisk = 32 << 20

// disk says that no key was written down (I4), and that the rest is bounded (I6).
func (c *campaign) disk() {
	c.t.Helper()
	total := 0
	err := filepath.WalkDir(c.path(driveData), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if strings.Contains(string(raw), "PRIVATE KEY") {
			c.t.Errorf("I4: there is a private key in %s", path)
		}
		total += len(raw)
		return err
	})
	c.must(err)
	if total > mostOnDisk {
		c.t.Errorf("I6: %d bytes in the service's folder", total)
	}
}
