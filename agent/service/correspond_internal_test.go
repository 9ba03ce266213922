package service

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"smime-agent/agent/control"
	"smime-agent/agent/enroll"
	"smime-agent/agent/local"
	"smime-agent/agent/state"
	"smime-agent/agent/status"
)

// until is a certificate (DER) that ends then.
func until(t *testing.T, end time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// correspondent is a session that remembers what it was given.
type correspondent struct {
	filed    [][][]byte
	says     enroll.PartnersFiled
	err      error
	wanted   []enroll.PublishWanted
	signable bool
}

func (c *correspondent) FilePartners(_ context.Context, certificates [][]byte) (enroll.PartnersFiled, error) {
	c.filed = append(c.filed, certificates)
	return c.says, c.err
}

func (c *correspondent) Publish(_ context.Context, w enroll.PublishWanted) ([]byte, error) {
	c.wanted = append(c.wanted, w)
	if !c.signable {
		return nil, &enroll.Error{Kind: enroll.Waiting, Code: enroll.CodeStoreLocked, Hint: "Unlock it."}
	}
	return fmt.Appendf(nil, "value %d", len(c.wanted)), nil
}

// books is an engine's ledger with what is given.
type books []enroll.Enrollment

func (b books) Save([]enroll.Enrollment, []enroll.Event) error { return nil }
func (b books) Load() ([]enroll.Enrollment, error)             { return b, nil }

// writing is a service as far as correspondence goes.
func writing(t *testing.T, path string, es ...enroll.Enrollment) *Service {
	t.Helper()
	record, _, err := state.Open(path, state.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = record.Close() })
	s := &Service{record: record, sessions: &local.Sessions{}, log: slog.New(slog.DiscardHandler), poke: make(chan struct{}, 1)}
	s.wrong = &conditions{now: s.now, changed: func() {}}
	s.engine = &enroll.Engine{Ledger: books(es), Sessions: s.sessions, Now: time.Now}
	if err := s.engine.Load(); err != nil {
		t.Fatal(err)
	}
	if s.correspondence, err = newCorrespondence(record); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Service) file(session *correspondent) int {
	before := len(session.filed)
	s.filePartnersOf(context.Background(), "uid:1", session)
	return len(session.filed) - before
}

// TestPartnersGoToSessions: once for each set, again daily and for another helper,
// without those that have ended meanwhile; and over restarts.
func TestPartnersGoToSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "agent.db")
		s, session := writing(t, path), &correspondent{}
		if s.file(session) != 0 {
			t.Error("filed where there never were any")
		}
		if _, digest := s.correspondence.report(); digest != control.NoPartners {
			t.Errorf("reports %q", digest)
		}
		short, long, odd := until(t, time.Now().Add(36*time.Hour)), until(t, time.Now().Add(1000*time.Hour)), []byte("none")
		all := [][]byte{short, long, odd}
		if err := s.takePartners(&control.Partners{Digest: "one", Certificates: all}); err != nil {
			t.Fatal(err)
		}
		if s.file(session) != 1 || !reflect.DeepEqual(session.filed[0], all) || s.file(session) != 0 {
			t.Errorf("filed %d times", len(session.filed))
		}
		for range 2 {
			time.Sleep(driftAgain)
			if s.file(session) != 1 {
				t.Error("not looked at daily")
			}
		}
		if want := [][]byte{long, odd}; !reflect.DeepEqual(session.filed[1], all) || !reflect.DeepEqual(session.filed[2], want) {
			t.Errorf("%d on the second day, %d on the third", len(session.filed[1]), len(session.filed[2]))
		}
		s.correspondence.attached("uid:1")
		if s.file(session) != 1 {
			t.Error("another helper got none")
		}
		if err := s.record.Close(); err != nil {
			t.Fatal(err)
		}
		s = writing(t, path)
		if _, digest := s.correspondence.report(); digest != "one" || s.file(session) != 1 {
			t.Errorf("after a restart: %q", digest)
		}
		if err := s.takePartners(&control.Partners{Digest: "two"}); err != nil {
			t.Fatal(err)
		}
		if s.file(session) != 1 || len(session.filed[len(session.filed)-1]) != 0 {
			t.Error("nothing is taken away")
		}
		if err := s.takePartners(nil); err != nil || s.file(session) != 0 {
			t.Errorf("no news, and yet filed: %v", err)
		}
	})
}

// TestPartnersUnfiled: what fails is tried again, ever more slowly, and shows as a
// condition of that user for as long as it goes on, but not of one who is not there.
func TestPartnersUnfiled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, session := writing(t, filepath.Join(t.TempDir(), "agent.db")), &correspondent{}
		if err := s.takePartners(&control.Partners{Digest: "one", Certificates: [][]byte{until(t, time.Now().Add(time.Hour))}}); err != nil {
			t.Fatal(err)
		}
		raised := func() []status.Raised { return s.correspondence.raised() }
		session.err = &enroll.Error{Kind: enroll.Waiting, Code: enroll.CodeUserAbsent}
		if s.file(session) != 1 || len(raised()) != 0 {
			t.Errorf("absent: %+v", raised())
		}
		time.Sleep(firstAgain)
		failed := time.Now()
		session.err = errors.New("disk on fire")
		if s.file(session) != 1 || s.file(session) != 0 {
			t.Error("not tried again after the wait, or at once")
		}
		time.Sleep(firstAgain)
		if s.file(session) != 0 {
			t.Error("the second wait is no longer than the first")
		}
		time.Sleep(firstAgain)
		session.err = nil
		session.says.Failures = []*enroll.Error{{Kind: enroll.Waiting, Code: enroll.CodeStoreLocked, Hint: "Unlock it."}}
		if s.file(session) != 1 {
			t.Error("not tried again")
		}
		r := raised()
		if len(r) != 1 || r[0].Code != status.PartnersNotFiled || r[0].User != "uid:1" || r[0].Detail != "Unlock it." || r[0].Since.Before(failed.Add(-firstAgain)) || r[0].Since.After(failed) {
			t.Errorf("%+v", r)
		}
		if got := s.raised(); !reflect.DeepEqual(got, r) {
			t.Errorf("the service says %+v", got)
		}
		for range 20 {
			time.Sleep(lastAgain)
			if s.file(session) != 1 {
				t.Fatal("the waits grow without bound")
			}
		}
		if got := raised()[0].Since; !got.Equal(r[0].Since) {
			t.Errorf("since %v, want %v", got, r[0].Since)
		}
		session.says.Failures = nil
		time.Sleep(lastAgain)
		if s.file(session) != 1 || len(raised()) != 0 {
			t.Errorf("after it went well: %+v", raised())
		}
	})
}

// using is a credential in use, proved, for signing and encryption.
func using(t *testing.T, id enroll.ID) enroll.Enrollment {
	return enroll.Enrollment{
		ID: id, Store: "file", State: enroll.Active, Chain: [][]byte{until(t, time.Now().Add(1000*time.Hour))},
		Assignment: enroll.Assignment{User: "uid:1", Mailboxes: []string{"a@example.com"}, Profile: enroll.Profile{Name: "dual", Keys: []string{"p-256"}, Sign: true, Encrypt: true}},
		Proof:      &enroll.Proof{Signs: true, Decrypts: true, ChainOK: true},
	}
}

func (s *Service) publish(t *testing.T, id enroll.ID, session *correspondent) int {
	t.Helper()
	w, ok := s.engine.Publishable(id)
	e, there := s.enrollment(id)
	if !ok || !there {
		t.Fatalf("%s cannot be published", id)
	}
	before := len(session.wanted)
	s.makePublication(context.Background(), e, w, session)
	return len(session.wanted) - before
}

// central takes values, or refuses them.
type central struct {
	got []string
	err error
}

func (c *central) Publish(_ context.Context, id enroll.ID, value []byte) error {
	c.got = append(c.got, string(id)+" "+string(value))
	return c.err
}

// TestPublications: a value is made once for each certificate, tried again after a
// failure, kept over restarts, handed in when central management wants it, not
// after it was refused, and forgotten with its credential.
func TestPublications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, e := filepath.Join(t.TempDir(), "agent.db"), using(t, "smime-1")
		s, session := writing(t, path, e), &correspondent{}
		if s.publish(t, e.ID, session) != 1 || s.publish(t, e.ID, session) != 0 {
			t.Error("a failure is tried again at once")
		}
		session.signable = true
		time.Sleep(firstAgain)
		if s.publish(t, e.ID, session) != 1 || s.publish(t, e.ID, session) != 0 || len(s.poke) != 1 {
			t.Errorf("%d attempts", len(session.wanted))
		}
		sum := sha256.Sum256([]byte("value 2"))
		want := map[enroll.ID][]byte{e.ID: sum[:]}
		if got, _ := s.correspondence.report(); !reflect.DeepEqual(got, want) {
			t.Errorf("reports %v", got)
		}
		if err := s.record.Close(); err != nil {
			t.Fatal(err)
		}
		s = writing(t, path, e)
		if got, _ := s.correspondence.report(); !reflect.DeepEqual(got, want) || s.publish(t, e.ID, session) != 0 {
			t.Errorf("after a restart: %v", got)
		}
		s.handsIn(t, e.ID)
		e.Chain = [][]byte{until(t, time.Now().Add(2000*time.Hour))}
		if err := s.record.Close(); err != nil {
			t.Fatal(err)
		}
		s = writing(t, path, e)
		if s.publish(t, e.ID, session) != 1 {
			t.Error("another certificate got no value")
		}
		s.makePublications(t.Context())
		if got, _ := s.correspondence.report(); len(got) != 1 {
			t.Errorf("forgot %v, which is in use", e.ID)
		}
		s.engine.Ledger = books{}
		if err := s.engine.Load(); err != nil {
			t.Fatal(err)
		}
		s.makePublications(t.Context())
		if kept, err := s.record.Publications(); err != nil || len(kept) != 0 {
			t.Errorf("kept %v, %v of nothing in use", kept, err)
		}
	})
}

// handsIn goes through what central management may answer.
func (s *Service) handsIn(t *testing.T, id enroll.ID) {
	t.Helper()
	c := &central{err: errors.New("no answer")}
	if err := s.handPublications(t.Context(), c, []enroll.ID{"smime-unknown", id}); err == nil {
		t.Error("no answer is no error")
	}
	c.err = nil
	if err := s.handPublications(t.Context(), c, []enroll.ID{id}); err != nil {
		t.Fatal(err)
	}
	c.err = &enroll.Error{Kind: enroll.Final, Code: enroll.CodeControlRejected}
	for range 2 {
		if err := s.handPublications(t.Context(), c, []enroll.ID{id}); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{string(id) + " value 2", string(id) + " value 2", string(id) + " value 2"}; !reflect.DeepEqual(c.got, want) {
		t.Errorf("handed in %q", c.got)
	}
	if got, _ := s.correspondence.report(); len(got) != 0 {
		t.Errorf("offers again what was refused: %v", got)
	}
}
