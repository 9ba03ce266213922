package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/control"
	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/state"
	"smime-agent/agent/status"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// TestPowerLoss is case F2 in the whole product: a real enrollment and a renewal,
// with every write of service and helper on record, and then every moment at
// which the power may go, with whatever of the unsynced writes arrived. Record,
// secrets and key store are on one disk, and what one of them says the others
// must bear out. Some of the states the real programs take up again.
func TestPowerLoss(t *testing.T) {
	onlyFull(t, "it wants strace, and time")
	platformtest.NeedPrograms(t, "strace")
	t.Parallel()
	number := *seed
	if number == 0 {
		number = rand.Uint64()
	}
	t.Logf("replay with -seed %d", number)
	random := rand.New(rand.NewPCG(number, 0))
	w := company(t, nil)
	logs := []string{filepath.Join(w.Dir, "service.strace"), filepath.Join(w.Dir, "helper.strace")}
	bin := w.Bin
	w.Bin = recorded(t, w, logs)
	w.open()
	home := w.Home(w.account)
	w.must(os.MkdirAll(home, 0o700))
	before := w.snapshot("agent", "home")
	helper := w.login(e2e.HelperOptions{})
	old, _ := credential(w.await("a proved certificate", has(alice, enroll.Active)), alice, enroll.Active)
	w.agent("renew", alice)
	w.await("the renewal", func(r status.Report) bool {
		c, ok := credential(r, alice, enroll.Active)
		return ok && c.ID != old.ID && c.Proof.OK() && has(alice, enroll.Kept)(r)
	})
	w.Service().Stop()
	helper.Stop()
	written, err := platformtest.ReadWriteLog(logs...)
	w.must(err)
	perCall := 1
	if testing.Short() {
		perCall = 0
	}
	p := platformtest.PowerLoss{
		Log: written, Root: w.Dir, Before: before, PerCall: perCall, Random: random, Heed: filepath.Join(w.Dir, "agent", "log", "audit.log"),
	}
	var kept []platformtest.Crash
	best := 0
	n, err := p.Each(func(c platformtest.Crash) error {
		kept = append(kept[max(0, len(kept)-lastStates+1):], c)
		certificates, err := w.judgeCrash(c)
		best = max(best, certificates)
		return err
	})
	w.must(err)
	if n < 500 || best != 2 {
		t.Errorf("%d states, at most %d certificates in one: the test hits nothing", n, best)
	}
	t.Logf("%d states of the disk", n)
	w.Bin = bin
	for _, i := range random.Perm(len(kept))[:min(takenUp, len(kept))] {
		w.takeUp(kept[i])
	}
}

// takenUp is how many of the last states the programs go on from. Of an earlier
// one they cannot: central management, whose disk did not fail, is further.
const (
	lastStates = 100
	takenUp    = 3
)

// recorded gives a folder of programs of which service and helper run under strace.
func recorded(t *testing.T, w *world, logs []string) string {
	t.Helper()
	dir := filepath.Join(w.Dir, "bin")
	w.must(os.Mkdir(dir, 0o755))
	for program, log := range map[string]string{"smime-agent": logs[0], "smime-helper": logs[1]} {
		real := filepath.Join(w.Bin, program)
		// -D: the program keeps the process ID that the world knows, so that it can be stopped.
		strace := strings.Replace(strings.Join(platformtest.RecordWrites(log), " "), "strace", "strace -D", 1)
		script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = service ] || [ %s = smime-helper ] || exec %s \"$@\"\nexec %s %s \"$@\"\n", program, real, strace, real)
		w.must(os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755))
	}
	w.must(os.Symlink(filepath.Join(w.Bin, "server-stub"), filepath.Join(dir, "server-stub")))
	return dir
}

// snapshot are the files and folders below some folders of the world, for
// [platformtest.PowerLoss.Before]; sockets are no files.
func (w *world) snapshot(folders ...string) map[string][]byte {
	w.t.Helper()
	all := map[string][]byte{}
	for _, folder := range folders {
		w.must(filepath.WalkDir(filepath.Join(w.Dir, folder), func(path string, d fs.DirEntry, err error) error {
			rel, relErr := filepath.Rel(w.Dir, path)
			if err = errors.Join(err, relErr); err != nil {
				return err
			}
			switch {
			case d.IsDir():
				all[rel+"/"] = nil
			case d.Type().IsRegular():
				all[rel], err = os.ReadFile(path)
			}
			return err
		}))
	}
	return all
}

// judgeCrash holds record, secrets, key store and what audit.log had told of
// against each other, and gives how many certificates are in the key store.
func (w *world) judgeCrash(c platformtest.Crash) (int, error) {
	dir, err := os.MkdirTemp("", "smime-crash-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := c.Put(dir); err != nil {
		return 0, err
	}
	told, joined, err := toldOf(c)
	if err != nil {
		return 0, err
	}
	es, generation, err := recordOf(filepath.Join(dir, "agent", "state", "agent.db"))
	if err != nil {
		return 0, err
	}
	if err := bornOut(told, es, generation); err != nil {
		return 0, err
	}
	if joined {
		secrets, err := platform.Secrets(filepath.Join(dir, "agent", "state"))
		if err != nil {
			return 0, err
		}
		if v, err := secrets.Get(w.t.Context(), control.SecretName); err != nil || len(v) == 0 {
			return 0, fmt.Errorf("I1: the machine had joined, and its identity is gone: %d bytes, %w", len(v), err)
		}
	}
	return w.storesBearOut(filepath.Join(dir, "home", w.account), es)
}

// toldOf reads the lines of audit.log that were written until the crash.
func toldOf(c platformtest.Crash) (told []auditLine, joined bool, err error) {
	for _, s := range c.Said {
		if !strings.HasSuffix(s.To, "audit.log") {
			continue
		}
		var l auditLine
		if err := json.Unmarshal([]byte(s.Text), &l); err != nil {
			return nil, false, fmt.Errorf("audit line %q: %w", s.Text, err)
		}
		told = append(told, l)
		joined = joined || l.text("event") == "device-joined"
	}
	return told, joined, nil
}

func recordOf(path string) (es []enroll.Enrollment, generation uint64, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil // the power went before there was one
	}
	db, opened, err := state.Open(path, state.Options{Now: time.Now})
	if err != nil {
		return nil, 0, fmt.Errorf("the record does not open: %w", err)
	}
	defer db.Close()
	if opened.Damaged {
		return nil, 0, fmt.Errorf("the record is damaged: %+v", opened)
	}
	es, err1 := db.Load()
	generation, err2 := db.Generation()
	return es, generation, errors.Join(err1, err2)
}

// bornOut holds the record to what was told of.
func bornOut(told []auditLine, es []enroll.Enrollment, generation uint64) error {
	for _, l := range told {
		if n, ok := l["sequence"].(float64); ok && uint64(n) > generation {
			return fmt.Errorf("I1: %s of transaction %v was told of, the record has %d", l.text("event"), n, generation)
		}
		id := enroll.ID(l.text("enrollment"))
		i := slices.IndexFunc(es, func(e enroll.Enrollment) bool { return e.ID == id })
		if id != "" && i < 0 {
			return fmt.Errorf("I1: %s of %s was told of, and it is not on record", l.text("event"), id)
		}
		if id != "" && rank(es[i].State) < rank(enroll.State(l.text("state"))) {
			return fmt.Errorf("I1: %s was told of as %s and is %s", id, l.text("state"), es[i].State)
		}
	}
	return nil
}

// storesBearOut wants the key of each request that is on record, and each
// certificate that is said to be installed; and no key without a record (I2).
func (w *world) storesBearOut(home string, es []enroll.Enrollment) (certificates int, err error) {
	stores, err := platform.Stores(w.t.Context(), platform.StoreOptions{Home: home})
	if err != nil && len(stores) == 0 {
		return 0, err
	}
	i := slices.IndexFunc(stores, func(s platform.Store) bool { return s.Info().Name == "file" })
	for _, e := range es {
		if e.State == enroll.Over || rank(e.State) < rank(enroll.Requested) {
			continue
		}
		key, err := stores[i].Open(w.t.Context(), platform.KeyID(e.ID))
		if err != nil {
			return certificates, fmt.Errorf("I1: the key of %s, which is %s: %w", e.ID, e.State, err)
		}
		if rank(e.State) < rank(enroll.Installed) {
			continue
		}
		chain, err := stores[i].Find(w.t.Context(), platform.KeyID(e.ID))
		if err != nil || !samePublic(chain[0].PublicKey, key.Public()) {
			return certificates, fmt.Errorf("I1: the certificate of %s, which is %s: %w", e.ID, e.State, err)
		}
		certificates++
	}
	keys, err := stores[i].Keys(w.t.Context())
	for _, k := range keys {
		if !slices.ContainsFunc(es, func(e enroll.Enrollment) bool { return platform.KeyID(e.ID) == k.ID }) {
			return certificates, fmt.Errorf("I2: key %s is an orphan", k.ID)
		}
	}
	return certificates, err
}

// takeUp puts a state in the place of the real one, and has the programs go on
// from it: all is well again by itself, with the one key and the one certificate
// for each enrollment that the ledger knows.
func (w *world) takeUp(c platformtest.Crash) {
	w.t.Helper()
	for _, place := range []string{"agent/state", "agent/log", "home"} {
		w.must(os.RemoveAll(filepath.Join(w.Dir, place)))
	}
	w.must(c.Put(w.Dir))
	if token := filepath.Join(w.Dir, "agent", "token"); len(c.Files["agent/token"]) > 0 {
		w.must(os.Chmod(token, 0o600))
	} else if made, err := w.Central(w.within(), "token", "create"); err == nil {
		w.must(os.WriteFile(token, []byte(longest(made)), 0o600)) // its power went between joining and the first word of it
	}
	w.must(w.StartAgent(w.within()))
	helper := w.login(e2e.HelperOptions{})
	w.must(os.MkdirAll(w.Home(w.account), 0o700))
	r := w.await("health after "+c.How, func(r status.Report) bool {
		c, ok := credential(r, alice, enroll.Active)
		return ok && c.Proof.OK() && atRest(r) && r.Device.Joined && len(r.Users) > 0 && r.Severity == status.OK
	})
	if a, ok := credential(r, alice, enroll.Active); ok {
		w.ledgerOf(a)
	}
	w.t.Logf("taken up after call %d (%s): %d credentials", c.Call, c.How, len(r.Credentials))
	w.Service().Stop()
	helper.Stop()
}

func longest(said string) string {
	word := ""
	for f := range strings.FieldsSeq(said) {
		if len(f) > len(word) {
			word = f
		}
	}
	return word
}
