package state

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/enroll"
)

// grown is the bytes of a record that has been lived in: several pages, an
// overflow page, free pages, replaced records.
func grown(t testing.TB) ([]byte, []enroll.Enrollment) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.db")
	d, _ := mustOpen(t, path)
	want := samples(12)
	for i, e := range want {
		for _, s := range []enroll.State{enroll.Wanted, enroll.Consented, enroll.Requested} {
			e.State = s
			if err := d.save(e); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 0 {
			if err := d.Save(nil, audit(enroll.Event{At: start, Code: enroll.EventWanted, Enrollment: e})); err != nil {
				t.Fatal(err)
			}
		}
	}
	policy := enroll.Policy{Revision: "1", Anchors: [][]byte{bytes.Repeat([]byte("anchor"), 1500)}}
	if err := d.SavePolicy(policy); err != nil {
		t.Fatal(err)
	}
	if err := d.save(want...); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw, want
}

// survive opens bad bytes and holds the oracle: no panic; either everything is
// as it was, or the damage is reported, nothing invented, and the record works.
func survive(t *testing.T, name string, bad []byte, want []enroll.Enrollment) Opened {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.db")
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	d, opened, err := Open(path, Options{Now: now})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	got, err := d.Load()
	if err != nil {
		t.Fatalf("%s: load: %v", name, err)
	}
	if !opened.Damaged && !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: %d of %d enrollments, and no damage reported", name, len(got), len(want))
	}
	if opened.Damaged {
		aside, err := os.ReadFile(opened.SetAside)
		if err != nil || !bytes.Equal(aside, bad) {
			t.Errorf("%s: set aside: %v", name, err)
		}
		if opened.Salvaged != len(got) || opened.Cause == "" {
			t.Errorf("%s: %+v with %d enrollments", name, opened, len(got))
		}
	}
	if err := d.save(sample(99)); err != nil {
		t.Errorf("%s: save: %v", name, err)
	}
	mustClose(t, d)
	d, again := mustOpen(t, path)
	if es, err := d.Load(); again.Damaged || err != nil || len(es) != len(got)+1 {
		t.Errorf("%s: second open: %+v, %d enrollments, %v", name, again, len(es), err)
	}
	mustClose(t, d)
	return opened
}

func TestBitFlipOnEveryPage(t *testing.T) {
	raw, want := grown(t)
	rng := rand.New(rand.NewPCG(1, 2))
	damaged, lost := 0, 0
	flips := 0
	flip := func(at, bit int) {
		bad := bytes.Clone(raw)
		bad[at] ^= 1 << bit
		flips++
		if o := survive(t, "flip", bad, want); o.Damaged {
			damaged++
			lost += len(want) - o.Salvaged
		}
	}
	places := []int{0, 8, 10, 12, 16, 20, 24, 28, 32, 48, 64, 72} // headers and elements
	more := 1
	if os.Getenv(allEnv) != "" {
		more = 12
	}
	for page := 0; page < len(raw)/pageSize; page++ {
		for i := range more {
			flip(page*pageSize+places[(page+i)%len(places)], rng.IntN(8))
			flip(page*pageSize+rng.IntN(pageSize/8), rng.IntN(8)) // where the records of most pages are
			flip(page*pageSize+rng.IntN(pageSize), rng.IntN(8))
		}
	}
	t.Logf("%d flips on %d pages: %d reported as damage, the others changed nothing that counts; %d enrollments lost in all",
		flips, len(raw)/pageSize, damaged, lost)
	if damaged < flips/20 {
		t.Errorf("only %d flips were noticed: the test hits nothing", damaged)
	}
	if lost > damaged { // one flip hits at most one record
		t.Errorf("%d enrollments lost by %d flips", lost, damaged)
	}
}

func TestFlipInARecordLosesThatRecordOnly(t *testing.T) {
	raw, want := grown(t)
	hits := 0
	for rest, at := raw, 0; ; {
		i := bytes.Index(rest, []byte("p7@example.com"))
		if i < 0 {
			break
		}
		raw[at+i] ^= 4 // every copy, the replaced ones too
		hits, at = hits+1, at+i+1
		rest = raw[at:]
	}
	o := survive(t, "p7", raw, want)
	if hits == 0 || !o.Damaged || o.Salvaged != len(want)-1 || o.Missing != 1 {
		t.Errorf("%d copies hit: %+v", hits, o)
	}
}

func TestTruncationAtEveryPage(t *testing.T) {
	raw, want := grown(t)
	used := int(max(binary.LittleEndian.Uint64(raw[16+40:]), binary.LittleEndian.Uint64(raw[pageSize+16+40:])))
	for size := 0; size < len(raw); size += pageSize {
		for _, n := range []int{size, size + 1, size + pageSize/2} {
			o := survive(t, "truncated", raw[:n], want)
			if n < used*pageSize && !o.Damaged {
				t.Errorf("truncation to %d of %d used bytes was not noticed", n, used*pageSize)
			}
		}
	}
}

func TestWhatIsNoRecordAtAll(t *testing.T) {
	_, want := grown(t)
	rng := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "zeros": make([]byte, 64<<10), "noise": noise,
		"text": []byte(strings.Repeat("not a database\n", 5000)), "magic only": bytes.Repeat(recordMagic[:], 4096),
	} {
		if o := survive(t, name, bad, want); !o.Damaged || o.Salvaged != 0 || o.Missing != -1 {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// A meta page with a bad checksum makes bbolt go back by one transaction
// without a word. That must not pass for a good record.
func TestTheLastSaveIsNotLostInSilence(t *testing.T) {
	raw, want := grown(t)
	for page := range 2 {
		bad := bytes.Clone(raw)
		bad[page*pageSize+pageHeader+16] ^= 1
		if o := survive(t, "meta", bad, want); !o.Damaged || o.Salvaged != len(want) {
			t.Errorf("meta page %d: %+v", page, o)
		}
	}
}

func TestFewFilesAreSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	for i := range 6 {
		if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		d, opened, err := Open(path, Options{Now: func() time.Time { return start.Add(time.Duration(i) * time.Minute) }})
		if err != nil || !opened.Damaged {
			t.Fatal(opened, err)
		}
		mustClose(t, d)
		if _, err := os.Stat(opened.SetAside); err != nil {
			t.Error("the newest is not kept:", err)
		}
	}
	if got, _ := filepath.Glob(path + ".damaged-*"); len(got) != keepSetAside {
		t.Errorf("%d files are set aside", len(got))
	}
}

// The file may lose its pages while it is open and mapped.
func TestDamageWhileOpen(t *testing.T) {
	raw, want := grown(t)
	path := filepath.Join(t.TempDir(), "agent.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	d, _ := mustOpen(t, path)
	bad := bytes.Clone(raw)
	for i := 2 * pageSize; i < len(bad); i++ {
		bad[i] ^= 0x10
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bad[2*pageSize:], 2*pageSize); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(); enroll.AsError(err).Code != enroll.CodeRecordFailed {
		t.Errorf("Load of a broken file: %v", err)
	}
	if err := d.save(want[0]); err == nil {
		t.Error("Save into a broken file succeeded")
	}
	_ = d.Close()
	if _, opened := mustOpen(t, path); !opened.Damaged {
		t.Errorf("reopened = %+v", opened)
	}
}

// FuzzImage judges strange bytes; they may be refused, never panic.
func FuzzImage(f *testing.F) {
	raw, _ := grown(f)
	f.Add(uint16(3), uint16(10), byte(1))
	f.Fuzz(func(_ *testing.T, page, at uint16, mask byte) {
		bad := bytes.Clone(raw)
		bad[(int(page)*pageSize+int(at))%len(bad)] ^= mask
		_, _ = examine(bad)
		_ = carve(bad)
	})
}

func FuzzRecord(f *testing.F) {
	good, err := seal(record{bucket: "b", key: "k", generation: 3, json: []byte(`{}`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, n, err := unseal(raw)
		if err != nil {
			return
		}
		if back, err := seal(r); err != nil || !bytes.Equal(back, raw[:n]) {
			t.Errorf("sealed anew it is another record: %v", err)
		}
	})
}

// TestDoubtOutlastsRestarts: a record that was repaired is compared with what
// else there is, however often the service dies before.
func TestDoubtOutlastsRestarts(t *testing.T) {
	raw, _ := grown(t)
	path := filepath.Join(t.TempDir(), "agent.db")
	if err := os.WriteFile(path, raw[:len(raw)/2/pageSize*pageSize-pageSize], 0o600); err != nil {
		t.Fatal(err)
	}
	for i, want := range []Opened{{Damaged: true, Doubted: true}, {Doubted: true}, {}} {
		d, opened := mustOpen(t, path)
		if opened.Damaged != want.Damaged || opened.Doubted != want.Doubted {
			t.Errorf("start %d: %+v", i, opened)
		}
		if err := d.save(sample(200 + i)); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if err := d.Doubt(false, 0); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, d)
	}
}
