package helper_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smime-agent/agent/enroll"
	"smime-agent/agent/helper"
	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

// office is a world with one mail program.
func office(t *testing.T, sets platform.MailSettings) (*world, *platformtest.MailProgram) {
	w := newWorld(t, newStore("mem", platform.P256))
	p := &platformtest.MailProgram{Word: "memory", Title: "Memory Mail"}
	p.Add(platform.MailAccountInfo{ID: "1", Mailbox: mailbox, Store: "mem", ByHand: []platform.MailSetting{platform.MailClearSign}}, sets)
	w.session.MailPrograms = func() []platform.MailProgram { return []platform.MailProgram{p} }
	return w, p
}

func preparation(c *x509.Certificate, earlier ...*x509.Certificate) enroll.PrepareWanted {
	w := enroll.PrepareWanted{
		ID: id, Store: "mem", Mailboxes: []string{mailbox}, Chain: [][]byte{c.Raw}, Sign: true, Encrypt: true,
		Rule: enroll.MailRule{Programs: []string{"*"}, Sign: enroll.MailAlways, Encrypt: enroll.MailUser},
	}
	for _, e := range earlier {
		w.Earlier = append(w.Earlier, e.Raw)
	}
	return w
}

// prepared prepares and gives the only account.
func prepared(t *testing.T, s enroll.Session, w enroll.PrepareWanted) enroll.MailAccount {
	t.Helper()
	all, err := s.Prepare(t.Context(), w)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d accounts, %v", len(all), err)
	}
	return all[0]
}

func settingsOf(t *testing.T, p *platformtest.MailProgram) platform.MailSettings {
	t.Helper()
	all, err := p.Accounts(t.Context(), mailbox)
	if err != nil {
		t.Fatal(err)
	}
	s, err := all[0].Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func suitePrepare(t *testing.T, l lend) {
	w, p := office(t, platform.MailSettings{Sign: platform.Off})
	s := l(t, w.session)
	c := platformtest.MailCertificate(t, mailbox)
	a := prepared(t, s, preparation(c))
	ref := platform.RefTo(c)
	if d := settingsOf(t, p).Differing(platform.MailSettings{Signing: ref, Encryption: ref, Sign: platform.On}); len(d) > 0 {
		t.Errorf("%v differ", d)
	}
	if a.State != enroll.MailReady || !a.Changed || a.Title != "Memory Mail" || a.Store != "mem" || settingsOf(t, p).Encrypt != "" {
		t.Errorf("%+v", a)
	}
	if again := prepared(t, s, preparation(c)); again.Changed || p.Writes() != 1 {
		t.Errorf("the second time: %+v, %d writes", again, p.Writes())
	}
	none := preparation(c)
	for _, none.Rule.Programs = range [][]string{nil, {"outlook"}} {
		if all, err := s.Prepare(t.Context(), none); err != nil || len(all) != 0 {
			t.Errorf("programs %v: %v, %v", none.Rule.Programs, all, err)
		}
	}
	bad := preparation(c)
	bad.Chain = [][]byte{{1}}
	_, err := s.Prepare(t.Context(), bad)
	wantError(t, err, enroll.Final, enroll.CodeCertificateRejected)
}

// TestPrepareWords: what each word does to a switch and to a certificate that the
// person chose, before the agent came and after.
func TestPrepareWords(t *testing.T) {
	ours, former, theirs := platformtest.MailCertificate(t, mailbox), platformtest.MailCertificate(t, mailbox), platformtest.MailCertificate(t, mailbox)
	for _, row := range []struct {
		word         enroll.MailWord
		was, becomes platform.Switch
		chosen       *x509.Certificate // in the program; nil is none
		prepared     bool
		uses         *x509.Certificate
	}{
		{enroll.MailAlways, platform.Off, platform.On, nil, false, ours},
		{enroll.MailAlways, platform.On, platform.On, theirs, true, ours},
		{enroll.MailNever, platform.On, platform.Off, theirs, true, ours},
		{enroll.MailUser, platform.On, platform.On, nil, false, ours},
		{enroll.MailUser, platform.Off, platform.Off, theirs, false, ours}, // from before the agent
		{enroll.MailUser, platform.Off, platform.Off, theirs, true, theirs},
		{enroll.MailUser, platform.Off, platform.Off, former, true, ours},
		{"newer-word", platform.Off, platform.Off, theirs, true, theirs},
	} {
		set := platform.MailSettings{Sign: row.was, Encrypt: row.was}
		if row.chosen != nil {
			set.Signing, set.Encryption = platform.RefTo(row.chosen), platform.RefTo(row.chosen)
		}
		w, p := office(t, set)
		task := preparation(ours, former)
		task.Rule.Sign, task.Rule.Encrypt = row.word, row.word
		if row.prepared {
			task.Prepared = []string{"memory 1"}
		}
		a := prepared(t, w.session, task)
		ref := platform.RefTo(row.uses)
		if d := settingsOf(t, p).Differing(platform.MailSettings{Signing: ref, Encryption: ref, Sign: row.becomes, Encrypt: row.becomes}); len(d) > 0 || a.State != enroll.MailReady {
			t.Errorf("%+v: %v differ, %+v", row, d, a)
		}
		if own := row.uses == theirs; own != slices.Equal(a.Own, []string{"signing-certificate", "encryption-certificate"}) {
			t.Errorf("%+v: own %v", row, a.Own)
		}
	}
}

// TestPrepareStates: whatever is in the way is the account's state, and no error.
func TestPrepareStates(t *testing.T) {
	c := platformtest.MailCertificate(t, mailbox)
	for name, row := range map[string]struct {
		fault  func(*platformtest.MailProgram)
		change func(*enroll.PrepareWanted)
		state  enroll.MailState
		byHand int
	}{
		"by hand":     {func(*platformtest.MailProgram) {}, func(w *enroll.PrepareWanted) { w.Rule.ClearSign = enroll.MailAlways }, enroll.MailReady, 1},
		"busy":        {func(p *platformtest.MailProgram) { p.Run(true) }, nil, enroll.MailBusy, 0},
		"managed":     {func(p *platformtest.MailProgram) { p.Manage("1", platform.MailSign) }, nil, enroll.MailManaged, 0},
		"other store": {nil, func(w *enroll.PrepareWanted) { w.Store = "another" }, enroll.MailOtherStore, 0},
		"unreadable":  {mailFails("settings"), nil, enroll.MailFailed, 0},
		"unwritable":  {mailFails("apply"), nil, enroll.MailFailed, 0},
		"not listed":  {mailFails("accounts"), nil, enroll.MailFailed, 0},
	} {
		w, p := office(t, platform.MailSettings{})
		task := preparation(c)
		if row.change != nil {
			row.change(&task)
		}
		if row.fault != nil {
			row.fault(p)
		}
		if a := prepared(t, w.session, task); a.State != row.state || len(a.ByHand) != row.byHand || a.Program != "memory" {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// TestPrepareUnusableStore: where the program's store cannot be used at all, the
// account says why.
func TestPrepareUnusableStore(t *testing.T) {
	w, _ := office(t, platform.MailSettings{})
	w.session.Stores = func(context.Context, []platform.Module) ([]platform.Store, error) {
		return nil, errors.Join(errors.New("store elsewhere: no"), fmt.Errorf("open store mem: %w: built for other processors", platform.ErrUnsupported))
	}
	task := preparation(platformtest.MailCertificate(t, mailbox))
	task.Store = "another"
	if a := prepared(t, w.session, task); a.State != enroll.MailOtherStore || !strings.Contains(a.Detail, "other processors") {
		t.Errorf("%+v", a)
	}
}

func mailFails(op string) func(*platformtest.MailProgram) {
	return func(p *platformtest.MailProgram) {
		p.Fail = func(o string) error {
			if o == op {
				return errors.New("disk on fire")
			}
			return nil
		}
	}
}

// TestPrepareOnlyFor: a credential for one use leaves the other alone.
func TestPrepareOnlyFor(t *testing.T) {
	w, p := office(t, platform.MailSettings{})
	task := preparation(platformtest.MailCertificate(t, mailbox))
	task.Encrypt, task.Rule.Encrypt = false, enroll.MailAlways
	prepared(t, w.session, task)
	if s := settingsOf(t, p); !s.Encryption.IsZero() || s.Encrypt != "" || s.Signing.IsZero() {
		t.Errorf("%+v", s)
	}
}

// TestPreparedAtClose: what an open program was in the way of is done as soon as
// it is closed, the newest certificate only, and the service is told.
func TestPreparedAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := office(t, platform.MailSettings{})
		p.Run(true)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		changed := 0
		go w.session.WatchPrograms(ctx, 0, func() { changed++ })
		old, renewed := platformtest.MailCertificate(t, mailbox), platformtest.MailCertificate(t, mailbox)
		prepared(t, w.session, preparation(old))
		next := preparation(renewed, old)
		next.ID += "2"
		prepared(t, w.session, next)
		time.Sleep(time.Minute)
		synctest.Wait()
		if p.Writes() != 0 || changed != 0 {
			t.Fatal("written beside the open program")
		}
		p.Run(false)
		time.Sleep(2 * helper.DefaultCloseLook)
		synctest.Wait()
		if !settingsOf(t, p).Signing.Same(platform.RefTo(renewed)) || changed != 1 || p.Writes() != 1 {
			t.Errorf("after the close: %+v, told %d times, %d writes", settingsOf(t, p), changed, p.Writes())
		}
	})
}

// TestPreparedAtCloseIsTheLast: what was asked for while an earlier wish waited for
// its turn is not written over by that.
func TestPreparedAtCloseIsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := office(t, platform.MailSettings{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		held := make(chan struct{})
		var armed atomic.Bool
		p.Fail = func(string) error {
			if armed.CompareAndSwap(true, false) {
				<-held
			}
			return nil
		}
		go w.session.WatchPrograms(ctx, 0, func() {})
		first := preparation(platformtest.MailCertificate(t, mailbox))
		last, other := first, first
		last.Rule.Sign, other.Store, other.ID, other.Undo = enroll.MailNever, "another", first.ID+"2", true
		p.Run(true)
		if a := prepared(t, w.session, first); a.State != enroll.MailBusy {
			t.Fatalf("beside the open program: %+v", a)
		}
		synctest.Wait() // the look for the close has come, in vain, and sleeps
		p.Run(false)
		armed.Store(true)
		var done sync.WaitGroup
		for _, wish := range []enroll.PrepareWanted{other, last} { // one has the turn, one waits for it
			done.Go(func() {
				if _, err := w.session.Prepare(ctx, wish); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		time.Sleep(2 * helper.DefaultCloseLook) // and behind that the look for the close
		close(held)
		done.Wait()
		time.Sleep(2 * helper.DefaultCloseLook)
		if got := settingsOf(t, p).Sign; got != platform.Off {
			t.Errorf("what was asked for last is %q, the program has %q", platform.Off, got)
		}
	})
}

// TestUndone: what the program had before comes back, byte for byte, at once or
// when it is closed; what was asked for last holds.
func TestUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		was := platform.MailSettings{Sign: platform.Off, Cipher: "aes-128"}
		w, p := office(t, was)
		before := p.Bytes("1")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		told := 0
		go w.session.WatchPrograms(ctx, 0, func() { told++ })
		task := preparation(platformtest.MailCertificate(t, mailbox))
		undo := task
		undo.Undo, undo.Rule = true, enroll.MailRule{Programs: []string{"*"}}
		prepared(t, w.session, task)
		p.Run(true)
		if a := prepared(t, w.session, undo); a.State != enroll.MailBusy {
			t.Fatalf("beside the open program: %+v", a)
		}
		p.Run(false)
		time.Sleep(2 * helper.DefaultCloseLook)
		synctest.Wait()
		if got := p.Bytes("1"); !slices.Equal(got, before) || told != 1 {
			t.Errorf("%s, want %s; told %d times", got, before, told)
		}
		if a := prepared(t, w.session, undo); a.State != enroll.MailUndone || a.Changed {
			t.Errorf("the second time: %+v", a)
		}
		p.Run(true)
		prepared(t, w.session, task)
		prepared(t, w.session, undo)
		p.Run(false)
		time.Sleep(2 * helper.DefaultCloseLook)
		synctest.Wait()
		if got := p.Bytes("1"); !slices.Equal(got, before) {
			t.Errorf("a wish that is over was followed: %s", got)
		}
		other := undo
		other.Store = "another"
		if all, err := w.session.Prepare(t.Context(), other); err != nil || len(all) != 0 {
			t.Errorf("another credential's account: %+v, %v", all, err)
		}
	})
}
