package enroll

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestMailUndo: what was there before comes back and stays, over daily looks, a
// restart and a renewal, until somebody wants it otherwise or policy changes.
func TestMailUndo(t *testing.T) {
	for _, ends := range []string{"apply", "policy"} {
		t.Run(ends, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				u := w.person("uid:1")
				a := assignment("uid:1", "a@example.com")
				a.Mail.Sign, a.Mail.Encrypt = MailUser, MailUser
				g, stop := w.run(w.policy(a))
				w.settle(time.Minute)
				first := only(t, g, Active)
				if err := g.UndoMail([]ID{first.ID}, false); err != nil {
					t.Fatal(err)
				}
				w.settle(time.Minute)
				w.undone(t, g, u, "after the undo")
				looks := len(u.prepares)
				w.settle(3 * day)
				if len(u.prepares) != looks {
					t.Errorf("%d looks at what is done", len(u.prepares)-looks)
				}
				stop()
				g, stop = w.run(w.policy(a))
				defer func() { stop() }()
				w.settle(day)
				w.undone(t, g, u, "after a restart")
				if _, err := g.Renew(Filter{}, ReasonAdministrator); err != nil {
					t.Fatal(err)
				}
				w.settle(time.Minute)
				w.undone(t, g, u, "after a renewal")
				if e := only(t, g, Active); e.ID == first.ID || slices.Contains(w.codes(e.ID), EventPrepared) {
					t.Errorf("%s is told of %v", e.ID, w.codes(e.ID))
				}
				if ends == "policy" {
					a.Mail.Sign = MailAlways
					if err := g.Apply(w.policy(a)); err != nil {
						t.Fatal(err)
					}
				} else if err := g.ApplyMail([]ID{only(t, g, Active).ID}); err != nil {
					t.Fatal(err)
				}
				w.settle(time.Minute)
				w.check(2)
				if last := u.prepares[len(u.prepares)-1]; last.Undo || ends == "apply" && len(last.Prepared) > 0 {
					t.Errorf("%+v", last) // what stands there now is no choice of the person's
				}
				if !slices.Contains(w.codes(first.ID), EventUndone) {
					t.Errorf("told %v", w.codes(first.ID))
				}
			})
		})
	}
}

// undone asserts that nothing of ours is in the program, and that the record says so.
func (w *world) undone(t *testing.T, g *Engine, u *person, when string) {
	t.Helper()
	var mail []byte
	w.lock(func() { mail = u.mail })
	e := only(t, g, Active)
	if mail != nil || e.Mail == nil || !e.Mail.Undone || len(e.Mail.Accounts) != 1 || e.Mail.Accounts[0].State != MailUndone {
		t.Errorf("%s: %d octets of a certificate, %+v", when, len(mail), e.Mail)
	}
}

// managed is a world whose one person has a credential in use, and whose mail
// programs policy manages.
func managed(t *testing.T, set func(*MailRule)) (*world, *person, *Engine, Assignment) {
	t.Helper()
	w := newWorld(t)
	u := w.person("uid:1")
	a := assignment("uid:1", "a@example.com")
	a.Mail = MailRule{Programs: []string{"*"}}
	set(&a.Mail)
	g, stop := w.run(w.policy(a))
	t.Cleanup(stop)
	w.settle(time.Minute)
	return w, u, g, a
}

// TestMailUndoRuled: what policy rules only an administrator takes back.
func TestMailUndoRuled(t *testing.T) {
	for _, set := range []func(*MailRule){
		func(r *MailRule) { r.Sign = MailAlways }, func(r *MailRule) { r.Encrypt = MailNever }, func(r *MailRule) { r.ClearSign = MailAlways },
	} {
		synctest.Test(t, func(t *testing.T) {
			w, u, g, _ := managed(t, set)
			id := only(t, g, Active).ID
			if err := g.UndoMail([]ID{id}, false); !errors.Is(err, ErrMailRuled) {
				t.Fatal(err)
			}
			w.settle(day)
			w.check(1)
			if err := g.UndoMail([]ID{id}, true); err != nil {
				t.Fatal(err)
			}
			w.settle(day)
			w.undone(t, g, u, "by an administrator")
		})
	}
}

// TestMailUndoWaits: a program that is open is put back when it is closed, and who
// is not there when he is.
func TestMailUndoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, u, g, _ := managed(t, func(*MailRule) {})
		w.lock(func() { u.present, u.mailSays.State = false, MailBusy })
		if err := g.UndoMail([]ID{only(t, g, Active).ID}, false); err != nil {
			t.Fatal(err)
		}
		w.settle(day)
		w.lock(func() { u.present = true })
		g.Attach("uid:1")
		w.settle(day)
		if e := only(t, g, Active); !e.Mail.Undone || e.Mail.Accounts[0].State != MailBusy {
			t.Errorf("while it is open: %+v", e.Mail)
		}
		w.lock(func() { u.mailSays.State = MailReady })
		g.Attach("uid:1")
		w.settle(time.Minute)
		w.undone(t, g, u, "closed")
	})
}

// TestMailUndoInRenewal: an undo that comes while a renewal is on its way holds for
// what comes of it.
func TestMailUndoInRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, u, g, _ := managed(t, func(*MailRule) {})
		old := only(t, g, Active)
		w.lock(func() { w.proofFail = "Not yet." })
		if _, err := g.Renew(Filter{}, ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		if err := g.UndoMail([]ID{old.ID}, false); err != nil {
			t.Fatal(err)
		}
		w.lock(func() { w.proofFail = "" })
		w.settle(day)
		if e := only(t, g, Active); e.ID == old.ID {
			t.Fatal("not renewed")
		}
		w.undone(t, g, u, "after the renewal")
	})
}

// TestMailUndoOfWhatEnds: programs are put back from a certificate that is revoked,
// or that policy gives no longer, too; nothing brings them to it again.
func TestMailUndoOfWhatEnds(t *testing.T) {
	type how func(*world, *Engine, Enrollment) error
	revoke := func(w *world, g *Engine, e Enrollment) error {
		w.lock(func() { w.users["uid:1"].locked = true }) // there is no new one yet
		return g.Revoked(e.ID, "superseded", w.now())
	}
	apply := func(_ *world, g *Engine, e Enrollment) error { return g.ApplyMail([]ID{e.ID}) }
	for name, c := range map[string]struct{ ends, over how }{
		"revoked": {revoke, apply},
		"revoked, and the rule changes": {revoke, func(w *world, g *Engine, e Enrollment) error {
			a := e.Assignment
			a.Mail.Sign = MailAlways
			return g.Apply(w.policy(a))
		}},
		"unwanted": {func(w *world, g *Engine, _ Enrollment) error { return g.Apply(w.policy()) }, apply},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				u := w.person("uid:1")
				a := assignment("uid:1", "a@example.com")
				a.Mail = MailRule{Programs: []string{"*"}}
				g, stop := w.run(w.policy(a))
				defer stop()
				w.settle(time.Minute)
				e := only(t, g, Active)
				if err := c.ends(w, g, e); err != nil {
					t.Fatal(err)
				}
				w.settle(day)
				if err := g.UndoMail([]ID{e.ID}, false); err != nil {
					t.Fatal(err)
				}
				w.settle(time.Minute)
				w.undone(t, g, u, "after the undo")
				if err := c.over(w, g, e); err != nil {
					t.Fatal(err)
				}
				looks := len(u.prepares)
				w.settle(3 * day)
				if u.mail != nil || len(u.prepares) != looks {
					t.Errorf("%d looks, and the programs have %d octets of a certificate", len(u.prepares)-looks, len(u.mail))
				}
			})
		})
	}
}

// TestMailUndoBeforeUnwanted: what waits for a closed program is done, though policy
// gives the certificate no longer; it holds when policy gives it again.
func TestMailUndoBeforeUnwanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, u, g, a := managed(t, func(*MailRule) {})
		w.lock(func() { u.mailSays.State = MailBusy })
		if err := g.UndoMail([]ID{only(t, g, Active).ID}, false); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		if err := g.Apply(w.policy()); err != nil {
			t.Fatal(err)
		}
		w.lock(func() { u.mailSays.State = MailReady })
		w.settle(2 * day)
		w.undone(t, g, u, "closed")
		if err := g.Apply(w.policy(a)); err != nil {
			t.Fatal(err)
		}
		w.settle(2 * day)
		w.undone(t, g, u, "given again")
	})
}

// TestMailUndoRuledByNext: a certificate that policy gives no longer opens no way
// around the rule of the one that follows it.
func TestMailUndoRuledByNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.person("uid:1")
		a := assignment("uid:1", "a@example.com")
		g, stop := w.run(w.policy(a))
		defer stop()
		w.settle(time.Minute)
		old := only(t, g, Active)
		w.lock(func() { w.proofFail = "Not yet." })
		a.Profile.Name = "another"
		if err := g.Apply(w.policy(a)); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		if e := only(t, g, Active); e.ID != old.ID || !e.Unwanted {
			t.Fatalf("%+v", e)
		}
		if err := g.UndoMail([]ID{old.ID}, false); !errors.Is(err, ErrMailRuled) {
			t.Fatal(err)
		}
		if err := g.UndoMail([]ID{old.ID}, true); err != nil {
			t.Fatal(err)
		}
		w.lock(func() { w.proofFail = "" })
		w.settle(day)
		if e := only(t, g, Active); e.ID == old.ID || !e.Mail.wishes() {
			t.Errorf("an administrator's undo is lost: %+v", e.Mail)
		}
	})
}

// TestMailApplyWhileUndone: what ends an undo is not lost because the programs of
// another credential are being put back at that moment.
func TestMailApplyWhileUndone(t *testing.T) {
	for _, again := range []bool{false, true} { // in a renewal, and at a look
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			u := w.person("uid:1")
			a := assignment("uid:1", "a@example.com")
			a.Mail = MailRule{Programs: []string{"*"}}
			g, stop := w.run(w.policy(a))
			defer func() { stop() }()
			w.settle(time.Minute)
			first := only(t, g, Active)
			if err := g.UndoMail([]ID{first.ID}, false); err != nil {
				t.Fatal(err)
			}
			w.settle(time.Minute)
			applied := false
			apply := func(p PrepareWanted) {
				u.preparing, applied = nil, true
				if !p.Undo {
					t.Errorf("%+v", p)
				}
				if err := g.ApplyMail([]ID{first.ID}); err != nil {
					t.Error(err)
				}
			}
			if again {
				b := a
				b.Profile.Name = "another"
				if err := g.Apply(w.policy(a, b)); err != nil {
					t.Fatal(err)
				}
				w.settle(time.Minute)
				stop()
				w.lock(func() {
					for id, e := range w.record {
						if id != first.ID {
							e.Mail = nil // as after a policy that left programs alone
							w.record[id] = e
						}
					}
				})
				u.preparing = apply
				g, stop = w.run(w.policy(a, b))
			} else {
				u.preparing = apply
				if _, err := g.Renew(Filter{}, ReasonAdministrator); err != nil {
					t.Fatal(err)
				}
			}
			w.settle(2 * day)
			for _, e := range g.Enrollments() {
				if e.State == Active && e.Mail.wishes() {
					t.Errorf("%s: %+v", e.ID, e.Mail)
				}
			}
			if !applied || u.mail == nil {
				t.Errorf("applied: %t, the programs have %d octets of a certificate", applied, len(u.mail))
			}
		})
	}
}
