package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"smime-agent/agent/enroll"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func now() time.Time { return start }

func mustOpen(t testing.TB, path string) (*DB, Opened) {
	t.Helper()
	d, opened, err := Open(path, Options{Now: now, LockTimeout: 100 * time.Millisecond, OutboxLimit: 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, opened
}

func mustClose(t testing.TB, d *DB) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func sample(i int) enroll.Enrollment {
	return enroll.Enrollment{
		ID: enroll.ID(fmt.Sprintf("%s%04d", enroll.IDPrefix, i)),
		Assignment: enroll.Assignment{
			User: "uid:1000", Mailboxes: []string{fmt.Sprintf("p%d@example.com", i)},
			Profile: enroll.Profile{Name: "sign", Keys: []string{"p-256"}, MaxValidity: time.Hour},
		},
		Store: "nss:default", State: enroll.Submitted, Reason: enroll.ReasonFirst,
		Created: start, Changed: start.Add(time.Duration(i) * time.Second),
		CSR: []byte(strings.Repeat("csr", 200)), Chain: [][]byte{[]byte(strings.Repeat("leaf", 200+i)), []byte("issuer")},
	}
}

// save is Save without events.
func (d *DB) save(es ...enroll.Enrollment) error { return d.Save(es) }

func samples(n int) []enroll.Enrollment {
	es := make([]enroll.Enrollment, n)
	for i := range es {
		es[i] = sample(i)
	}
	return es
}

func TestWhatIsSavedComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	d, opened := mustOpen(t, path)
	if !opened.Created || opened.Damaged {
		t.Fatalf("opened = %+v", opened)
	}
	if p, err := d.Policy(); p != nil || err != nil {
		t.Fatalf("policy of a new record = %v, %v", p, err)
	}
	want := samples(30)
	policy := enroll.Policy{Revision: "7", Organization: "Example", SuggestedRenewal: map[string]time.Time{"0a": start}}
	sync := Sync{Next: start.Add(time.Hour), Offset: -3 * time.Second, Revision: "7", Contact: start}
	for _, err := range []error{d.save(want...), d.save(want[3]), d.SavePolicy(policy), d.SaveSync(sync)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	installation := d.Installation()
	mustClose(t, d)

	d, opened = mustOpen(t, path)
	if opened != (Opened{}) {
		t.Errorf("reopened = %+v", opened)
	}
	if got, err := d.Load(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Load = %d enrollments, %v", len(got), err)
	}
	if got, err := d.Policy(); err != nil || !reflect.DeepEqual(*got, policy) {
		t.Errorf("Policy = %+v, %v", got, err)
	}
	if got, err := d.Sync(); err != nil || !reflect.DeepEqual(got, sync) {
		t.Errorf("Sync = %+v, %v", got, err)
	}
	if installation == "" || d.Installation() != installation {
		t.Errorf("installation %q became %q", installation, d.Installation())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v", info.Mode(), err)
	}
}

func TestSaveIsAllOrNothing(t *testing.T) {
	d, _ := mustOpen(t, filepath.Join(t.TempDir(), "agent.db"))
	err := d.save(sample(1), enroll.Enrollment{})
	if e, ok := errors.AsType[*enroll.Error](err); !ok || e.Kind != enroll.Transient || e.Code != enroll.CodeRecordFailed || e.Hint == "" {
		t.Errorf("error = %#v", err)
	}
	if es, err := d.Load(); len(es) != 0 || err != nil {
		t.Errorf("Load = %v, %v", es, err)
	}
	if err := d.save(sample(1)); err != nil {
		t.Errorf("after a refused save: %v", err)
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	d, _ := mustOpen(t, path)
	if _, _, err := Open(path, Options{Now: now, LockTimeout: 100 * time.Millisecond}); !errors.Is(err, ErrInUse) {
		t.Fatalf("second Open: %v", err)
	}
	mustClose(t, d)
	mustOpen(t, path)
}

func TestOpenRefusesOddPlaces(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("do not touch"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(target, link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	folder := filepath.Join(dir, "folder.db")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, folder, filepath.Join(dir, "absent", "agent.db")} {
		if _, _, err := Open(path, Options{Now: now}); err == nil {
			t.Errorf("Open(%s) succeeded", path)
		}
	}
	if b, _ := os.ReadFile(target); string(b) != "do not touch" {
		t.Error("the link's target was written to")
	}
}

func TestBrokenLockFileIsReplaced(t *testing.T) {
	for name, junk := range map[string]string{"garbage": strings.Repeat("x", 40000), "short": "x"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "agent.db")
			if err := os.WriteFile(path+".lock", []byte(junk), 0o600); err != nil {
				t.Fatal(err)
			}
			mustOpen(t, path)
		})
	}
}

func TestOutbox(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	d, _ := mustOpen(t, path)
	for i := range 25 { // the limit is 20
		e := sample(i)
		if err := d.Save(nil, audit(enroll.Event{At: start, Code: enroll.EventIssued, Enrollment: e, Outcome: "success"})); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, d)
	d, _ = mustOpen(t, path)
	events, err := d.Pending(8)
	if err != nil || len(events) != 8 {
		t.Fatalf("Pending = %d, %v", len(events), err)
	}
	if events[0].Event.Enrollment.ID != sample(5).ID {
		t.Errorf("oldest is %s", events[0].Event.Enrollment.ID)
	}
	if e := events[0].Event.Enrollment; e.CSR != nil || len(e.Chain) != 1 {
		t.Error("more is kept than the leaf")
	}
	if n, err := d.Dropped(); n != 5 || err != nil {
		t.Errorf("Dropped = %d, %v", n, err)
	}
	if err := d.Forget(events[0].ID, events[1].ID, events[1].ID, "unknown"); err != nil {
		t.Fatal(err)
	}
	rest, err := d.Pending(100)
	if err != nil || len(rest) != 18 || rest[0].ID != events[2].ID {
		t.Errorf("after Forget: %d, %v", len(rest), err)
	}
	mustClose(t, d)
	if _, opened := mustOpen(t, path); opened.Damaged {
		t.Errorf("opened = %+v", opened)
	}
}

func BenchmarkSave(b *testing.B) {
	d, _ := mustOpen(b, filepath.Join(b.TempDir(), "agent.db"))
	if err := d.save(samples(50)...); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := d.save(sample(7)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "agent.db")
	d, _ := mustOpen(b, path)
	if err := d.save(samples(50)...); err != nil {
		b.Fatal(err)
	}
	mustClose(b, d)
	b.ReportAllocs()
	for b.Loop() {
		d, _, err := Open(path, Options{Now: now})
		if err != nil {
			b.Fatal(err)
		}
		mustClose(b, d)
	}
}

// audit gives an event the ID that its maker would.
func audit(e enroll.Event) AuditEvent {
	return AuditEvent{ID: uuid.Must(uuid.NewV7()).String(), Event: e}
}
