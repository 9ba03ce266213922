//go:build linux

package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
)

const bob = "bob@example.com"

// damage is something that happens to the record while the service is stopped.
type damage struct {
	name  string
	quick bool
	// older says that it leaves a file that is sound.
	older bool
	do    func(random *rand.Rand, path string, raw []byte) error
}

// damages are what is tried; older are copies of the record from before.
func damages(older map[string][]byte) []damage {
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
		{name: "garbage", quick: true, do: func(_ *rand.Rand, path string, _ []byte) error {
			return os.WriteFile(path, []byte("this is no record"), 0o600)
		}},
		{name: "removed", quick: true, older: true, do: func(_ *rand.Rand, path string, _ []byte) error { return os.Remove(path) }},
		{name: "policy alone", quick: true, do: func(_ *rand.Rand, path string, raw []byte) error {
			return os.WriteFile(path, spoil(raw, "policy"), 0o600)
		}},
		{name: "empty", do: cut(func(int) int { return 0 })},
		{name: "one page", do: cut(func(int) int { return 4096 })},
		// The two pages that say where all else lies, and nothing else.
		{name: "two pages", do: cut(func(int) int { return 2 * 4096 })},
		{name: "half", do: cut(func(n int) int { return n / 2 / 4096 * 4096 })},
		{name: "odd length", do: cut(func(n int) int { return n/2 + 17 })},
	}
	for i := range 4 {
		all = append(all, damage{name: fmt.Sprintf("bit %d", i), do: flip})
	}
	for i := range 8 {
		all = append(all, damage{name: fmt.Sprintf("page %d", i), do: page(i)})
	}
	for _, name := range slices.Sorted(maps.Keys(older)) {
		all = append(all, damage{name: "older copy: " + name, quick: true, older: true, do: func(_ *rand.Rand, path string, _ []byte) error {
			return os.WriteFile(path, older[name], 0o600)
		}})
	}
	return all
}

// layout is what the pages of a record are for, by bbolt's own account.
type layout struct {
	// high is the first page that the file does not need.
	high int
	used map[int]bool
}

func (w *world) layoutOf(raw []byte) layout {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "copy.db")
	w.must(os.WriteFile(path, raw, 0o600))
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, PageSize: recordPage})
	w.must(err)
	defer func() { w.must(db.Close()) }()
	l := layout{used: map[int]bool{}}
	w.must(db.View(func(tx *bbolt.Tx) error {
		for {
			p, err := tx.Page(l.high)
			if err != nil || p == nil {
				return err
			}
			if p.Type == "free" { // what it says of its length is from another time
				p.OverflowCount = 0
			}
			for i := range p.OverflowCount + 1 {
				l.used[l.high+i] = p.Type != "free"
			}
			l.high += p.OverflowCount + 1
		}
	}))
	return l
}

const recordPage = 4096

// harmed says what became of the pages: lost, if the file is too short for
// those that it needs; spoiled, if one that is used is another one now.
func (l layout) harmed(before, after []byte) (lost, spoiled bool) {
	lost = len(after) < l.high*recordPage
	for page, used := range l.used {
		from, to := page*recordPage, (page+1)*recordPage
		spoiled = spoiled || used && to <= len(after) && !bytes.Equal(before[from:to], after[from:to])
	}
	return lost, spoiled
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
// certificate is issued for it, and nobody is asked again. The same after an
// older copy was put back.
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
	older := map[string][]byte{}
	w.await("questions", func(r status.Report) bool { return has(alice, enroll.Wanted)(r) && has(bob, enroll.Wanted)(r) })
	older["both were asked"] = w.copyRecord()
	w.agent("approve")
	r := w.await("two credentials", inUse)
	w.ledgerOf(r.Credentials[0])
	older["both were served"] = w.copyRecord()
	w.await("the helper again", func(r status.Report) bool { return len(r.Users) > 0 })
	w.agent("renew", alice)
	before := w.await("a renewal", func(r status.Report) bool { return inUse(r) && has(alice, enroll.Kept)(r) })
	w.ledgerOf(before.Credentials[len(before.Credentials)-1]) // everything is reported
	issued, consents := len(w.ledger()), w.events()["consent-given"]
	for _, d := range damages(older) {
		if !d.quick && !full() {
			continue
		}
		told := w.events()["record-damaged"]
		w.Service().Stop()
		helper.Stop()
		path := filepath.Join(w.Dir, "agent", "state", "agent.db")
		raw, err := os.ReadFile(path)
		w.must(err)
		pages := w.layoutOf(raw)
		w.must(d.do(random, path, bytes.Clone(raw)))
		after, err := os.ReadFile(path)
		if !errors.Is(err, fs.ErrNotExist) {
			w.must(err)
		}
		started := time.Now()
		w.must(w.StartAgent(w.within()))
		helper = w.login(e2e.HelperOptions{})
		r := w.await("everything after "+d.name, func(r status.Report) bool {
			return same(before, r) && len(r.Users) > 0 && r.Device.LastContact.After(started) && r.Severity == status.OK
		})
		w.judgeRebuilt(d, r, issued)
		if n := w.events()["consent-given"]; n != consents {
			t.Errorf("%s: %d consents, had %d", d.name, n, consents)
		}
		w.judgeTold(d, w.events()["record-damaged"] > told, pages, raw, after)
	}
}

// judgeTold holds that damage is told of if and only if pages that the record
// needs are gone or are others now. A single bit of such a page may also fall
// where nothing is.
func (w *world) judgeTold(d damage, told bool, pages layout, before, after []byte) {
	w.t.Helper()
	lost, spoiled := pages.harmed(before, after)
	w.t.Logf("%s: told %v; %d of %d pages needed, now %d; lost %v, spoiled %v",
		d.name, told, pages.high, len(before)/recordPage, len(after)/recordPage, lost, spoiled)
	bit := strings.HasPrefix(d.name, "bit ")
	switch {
	case !told && (d.older || lost || spoiled && !bit):
		w.t.Errorf("%s was not noticed", d.name)
	case told && !d.older && !lost && !spoiled:
		w.t.Errorf("%s was told of, although nothing was lost", d.name)
	}
}

// copyRecord gives the record as it is now.
func (w *world) copyRecord() []byte {
	w.t.Helper()
	w.Service().Stop()
	raw, err := os.ReadFile(filepath.Join(w.Dir, "agent", "state", "agent.db"))
	w.must(err)
	w.must(w.StartAgent(w.within()))
	return raw
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
