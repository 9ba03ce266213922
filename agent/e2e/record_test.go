//go:build linux

package e2e_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

const bob = "bob@example.com"

// damage is something that happens to the record while the service is stopped.
type damage struct {
	name  string
	quick bool
	// told says that it must be noticed: a bit may also fall where nothing is.
	told bool
	do   func(random *rand.Rand, path string, raw []byte) error
}

func damages() []damage {
	cut := func(at func(int) int) func(*rand.Rand, string, []byte) error {
		return func(_ *rand.Rand, path string, raw []byte) error { return os.Truncate(path, int64(at(len(raw)))) }
	}
	flip := func(random *rand.Rand, path string, raw []byte) error {
		raw[random.IntN(len(raw))] ^= 1 << random.IntN(8)
		return os.WriteFile(path, raw, 0o600)
	}
	page := func(n int) func(*rand.Rand, string, []byte) error {
		return func(random *rand.Rand, path string, raw []byte) error {
			at := n * os.Getpagesize() % len(raw)
			for i := range min(os.Getpagesize(), len(raw)-at) {
				raw[at+i] = byte(random.Uint32())
			}
			return os.WriteFile(path, raw, 0o600)
		}
	}
	all := []damage{
		{name: "garbage", quick: true, told: true, do: func(_ *rand.Rand, path string, _ []byte) error {
			return os.WriteFile(path, []byte("this is no record"), 0o600)
		}},
		{name: "removed", quick: true, do: func(_ *rand.Rand, path string, _ []byte) error { return os.Remove(path) }},
		{name: "policy alone", quick: true, told: true, do: func(_ *rand.Rand, path string, raw []byte) error {
			return os.WriteFile(path, spoil(raw, "policy"), 0o600)
		}},
		{name: "empty", do: cut(func(int) int { return 0 })},
		{name: "one page", told: true, do: cut(func(int) int { return 4096 })},
		// The two pages that say where all else lies, and nothing else.
		{name: "two pages", told: true, do: cut(func(int) int { return 2 * 4096 })},
		// The second half may hold nothing but free pages; then nothing was lost
		// with it, and there is nothing to tell.
		{name: "half", do: cut(func(n int) int { return n / 2 / 4096 * 4096 })},
		{name: "odd length", do: cut(func(n int) int { return n/2 + 17 })},
	}
	for i := range 4 {
		all = append(all, damage{name: fmt.Sprintf("bit %d", i), do: flip})
	}
	for i := range 8 {
		all = append(all, damage{name: fmt.Sprintf("page %d", i), do: page(i)})
	}
	return all
}

// spoil changes every record of a bucket, those of earlier transactions too. A
// record has its bucket's name, with a length before it, ahead of its content
// (agent/state/record.go).
func spoil(raw []byte, bucket string) []byte {
	mark := append([]byte{byte(len(bucket))}, bucket...)
	for at := 0; ; {
		i := bytes.Index(raw[at:], mark)
		if i < 0 {
			return raw
		}
		at += i + len(mark)
		for j := at + 16; j < min(at+24, len(raw)); j++ {
			raw[j] ^= 0x55
		}
	}
}

// TestDamagedRecord is case F8: the service starts, sets the file aside, and
// has everything again from the stores and from central management. No
// certificate is issued for it, and nobody is asked again.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	number := *seed
	if number == 0 {
		number = rand.Uint64()
	}
	t.Logf("replay with -seed %d", number)
	random := rand.New(rand.NewPCG(number, 0))
	w := company(t, func(w *e2e.World) {
		w.Consent, w.Profile = "ask", "employee-dual"
		w.Employees = append(w.Employees, e2e.Employee{Account: w.Employees[0].Account, Mailbox: bob, Given: "Bob", Surname: "Example"})
	})
	w.open()
	helper := w.login(e2e.HelperOptions{})
	w.await("questions", func(r status.Report) bool { return has(alice, enroll.Wanted)(r) && has(bob, enroll.Wanted)(r) })
	w.agent("approve")
	w.await("two credentials", inUse)
	w.agent("renew", alice)
	before := w.await("a renewal", func(r status.Report) bool { return inUse(r) && has(alice, enroll.Kept)(r) })
	w.ledgerOf(before.Credentials[len(before.Credentials)-1]) // everything is reported
	issued := len(w.ledger())
	for _, d := range damages() {
		if !d.quick && !full() {
			continue
		}
		told := w.events()["record-damaged"]
		w.Service().Stop()
		helper.Stop()
		path := filepath.Join(w.Dir, "agent", "state", "agent.db")
		raw, err := os.ReadFile(path)
		w.must(err)
		w.must(d.do(random, path, raw))
		started := time.Now()
		w.must(w.StartAgent(w.within()))
		helper = w.login(e2e.HelperOptions{})
		after := w.await("everything after "+d.name, func(r status.Report) bool {
			return same(before, r) && len(r.Users) > 0 && r.Device.LastContact.After(started) && r.Severity == status.OK
		})
		w.judgeRebuilt(d, after, issued)
		if noticed := w.events()["record-damaged"] > told; d.told && !noticed {
			t.Errorf("%s was not noticed", d.name)
		} else {
			t.Logf("%s: noticed %v", d.name, noticed)
		}
	}
}

// inUse says that both mailboxes are served and nothing is on its way.
func inUse(r status.Report) bool {
	return !slices.ContainsFunc(r.Credentials, func(c status.Credential) bool {
		return c.State != enroll.Active && c.State != enroll.Kept
	}) && has(alice, enroll.Active)(r) && has(bob, enroll.Active)(r)
}

// same says that b has the credentials of a, in the same states, and no other
// one that ever had, or wants, a certificate.
func same(a, b status.Report) bool {
	states := func(r status.Report) map[enroll.ID]string {
		m := map[enroll.ID]string{}
		for _, c := range r.Credentials {
			if c.State != enroll.Over { // began without a store, before that was read
				m[c.ID] = string(c.State) + " " + c.Serial
			}
		}
		return m
	}
	x, y := states(a), states(b)
	for id, s := range x {
		if y[id] != s {
			return false
		}
	}
	return len(x) == len(y)
}

func (w *world) judgeRebuilt(d damage, r status.Report, issued int) {
	w.t.Helper()
	v, err := w.oracle().judge(r)
	if err != nil || v.certificates != issued || v.keys != issued || v.decrypted != issued {
		w.t.Errorf("after %s: %+v of %d, %v", d.name, v, issued, err)
	}
	for _, c := range r.Credentials {
		if c.State == enroll.Wanted || c.State == enroll.Active && !c.Proof.OK() {
			w.t.Errorf("after %s: %+v", d.name, c)
		}
	}
}
