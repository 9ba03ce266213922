package publication

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	controlv1 "smime-agent/proto/control/v1"
	"smime-agent/server-stub/ca"
	"smime-agent/server-stub/directory"
	"smime-agent/server-stub/store"
)

const (
	// interval is how often everything is looked at, settle how long changes are
	// gathered before that.
	interval = time.Hour
	settle   = 2 * time.Second
	// share is the part of the time that passes may take: a pass reads the ledger.
	share = 20
	// fresh is how long a mailbox that was seen right is not asked after again.
	fresh = 24 * time.Hour
	// The waits after failures.
	firstAgain = time.Minute
	lastAgain  = 6 * time.Hour
)

// Waiting is the state of a mailbox whose certificate no device has proved yet;
// NoDirectory that of all where there is none.
const (
	Waiting     = "waiting"
	NoDirectory = "no-directory"
)

// Session is an open directory.
type Session interface {
	Publish(w directory.Wanted) (directory.Outcome, error)
	Close() error
}

// Desk keeps the directory as the ledger wants it.
type Desk struct {
	Store  store.Store
	Lookup Lookup
	// Entries goes through the ledger; the entries have no certificate in them.
	Entries func(visit func(tx store.Tx, e *controlv1.LedgerEntry) bool) error
	// Issuers are those of a record's certificate, DER.
	Issuers func(r *store.Request) [][]byte
	// Dial opens the directory; nil where there is none.
	Dial func(ctx context.Context) (Session, error)
	// Hold takes the turn at the directory, or prolongs it; false while another
	// server that shares the store has it. Release gives it back.
	Hold    func(ctx context.Context) (bool, error)
	Release func(ctx context.Context) error
	// Changed hears of what the directory has otherwise than before; may be nil.
	Changed func(Change)
	Now     func() time.Time
	Log     *slog.Logger

	passing sync.Mutex
	poked   chan struct{}
	once    sync.Once
	// failures counts passes in a row that did not reach the directory; trouble says why.
	mu       sync.Mutex
	failures int
	trouble  string
}

func (d *Desk) poke() chan struct{} {
	d.once.Do(func() { d.poked = make(chan struct{}, 1) })
	return d.poked
}

// Poke says that something has changed.
func (d *Desk) Poke() {
	select {
	case d.poke() <- struct{}{}:
	default:
	}
}

// Run keeps the directory right until ctx ends.
func (d *Desk) Run(ctx context.Context) {
	if d.Dial == nil {
		return
	}
	wait := settle
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		began := time.Now()
		err := d.Pass(ctx)
		wait = max(settle, share*time.Since(began))
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, ErrTurn): // nobody there hears of what this server was told
			wait = max(wait, firstAgain)
		default:
			d.Log.Error("directory not brought up to date", "error", err)
			wait = max(wait, d.backoff())
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-d.poke():
		case <-timer.C:
		}
		timer.Stop()
		if err != nil {
			d.Poke() // what has failed needs no other reason
		}
	}
}

func (d *Desk) backoff() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return doubled(d.failures)
}

func doubled(failures int) time.Duration {
	if failures > 12 {
		return lastAgain
	}
	return min(lastAgain, firstAgain<<max(failures-1, 0))
}

// candidate is a certificate of a mailbox, on its way to be the one.
type candidate struct {
	reference, serial, hostname string
	from, ends                  time.Time
	fingerprint                 [32]byte
	// alive: not revoked and not ended; usable: and to encrypt to; proved: a device
	// decrypts with it.
	alive, usable, proved bool
}

// survey gathers the certificates of each mailbox, in lower case.
func (d *Desk) survey() (map[string][]candidate, error) {
	all := map[string][]candidate{}
	now := d.Now()
	err := d.Entries(func(_ store.Tx, e *controlv1.LedgerEntry) bool {
		c := candidate{
			reference: e.GetReference(), serial: e.GetSerial(), hostname: e.GetHostname(),
			from: e.GetNotBefore().AsTime(), ends: e.GetNotAfter().AsTime(),
			proved: e.GetProof().GetOk() && e.GetProof().GetDecrypts(),
		}
		if raw, err := hex.DecodeString(e.GetFingerprintSha256()); err == nil {
			copy(c.fingerprint[:], raw)
		}
		// One that is replaced serves until its successor is proved.
		c.alive = e.GetRevokedAt() == nil && now.Before(c.ends)
		c.usable = c.alive && encrypts(e.GetType())
		for _, mailbox := range e.GetMailboxes() {
			mailbox = strings.ToLower(mailbox)
			all[mailbox] = append(all[mailbox], c)
		}
		return true
	})
	for _, list := range all {
		slices.SortFunc(list, better)
	}
	return all, err
}

// better puts what is to be published first.
func better(a, b candidate) int {
	rank := func(c candidate) int {
		switch {
		case c.usable && c.proved:
			return 0
		case c.usable:
			return 1
		}
		return 2
	}
	return cmp.Or(rank(a)-rank(b), b.from.Compare(a.from), strings.Compare(b.reference, a.reference))
}

// filed is what is known of a mailbox in the directory.
type filed struct {
	State       string    `json:"state"`
	Certificate string    `json:"certificate,omitempty"` // reference
	Signed      bool      `json:"signed,omitempty"`
	Wish        []byte    `json:"wish,omitempty"` // SHA-256 of all that was wanted
	Seen        time.Time `json:"seen,omitzero"`
	Next        time.Time `json:"next,omitzero"`
	Failures    int       `json:"failures,omitempty"`
	DN          string    `json:"dn,omitempty"`
	Problem     string    `json:"problem,omitempty"`
}

// wish is what a mailbox is to have.
type wish struct {
	mailbox string
	list    []candidate
	chosen  *candidate // nil: nothing new yet
	request *store.Request
	signed  []byte
	signer  string
	before  filed
}

// Pass brings every mailbox whose wish has changed, or that was not looked at for
// a day, to what the ledger wants. [ErrTurn] while another server is at it,
// [ErrDirectory] if the directory cannot be asked.
func (d *Desk) Pass(ctx context.Context) (err error) {
	d.passing.Lock()
	defer d.passing.Unlock()
	due, err := d.due()
	if err != nil || len(due) == 0 || d.Dial == nil {
		return err
	}
	if err := d.turn(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Release(ctx)) }()
	if _, shared := d.Store.(store.Shared); shared { // whoever had the turn before may have done it, or other things since
		if due, err = d.due(); err != nil {
			return err
		}
	}
	session, err := d.Dial(ctx)
	if err != nil {
		return d.unreached(err)
	}
	defer func() { _ = session.Close() }() // all was read back
	for i, w := range due {
		if err := ctx.Err(); err != nil {
			return err
		}
		if i%turnPart == turnPart-1 {
			if err := d.turn(ctx); err != nil {
				return err
			}
		}
		outcome, err := session.Publish(w.wanted())
		if err != nil {
			return d.unreached(err)
		}
		if err := d.note(ctx, w, outcome); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures, d.trouble = 0, ""
	return nil
}

func (d *Desk) due() ([]*wish, error) {
	wishes, err := d.wishes("")
	now := d.Now()
	return slices.DeleteFunc(wishes, func(w *wish) bool { return !w.due(now) }), err
}

// turn takes or prolongs the turn at the directory.
func (d *Desk) turn(ctx context.Context) error {
	mine, err := d.Hold(ctx)
	if err == nil && !mine {
		return ErrTurn
	}
	return err
}

// turnPart is how many mailboxes are written before the turn is prolonged.
const turnPart = 50

func (d *Desk) unreached(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures++
	d.trouble = err.Error()
	return fmt.Errorf("%w: %w", ErrDirectory, err)
}

// wishes makes the wish of each mailbox that has ever had a certificate, sorted.
func (d *Desk) wishes(matches string) ([]*wish, error) {
	all, err := d.survey()
	if err != nil {
		return nil, err
	}
	mailboxes := slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(m string) bool { return !strings.Contains(m, strings.ToLower(matches)) })
	out := make([]*wish, 0, len(mailboxes))
	err = d.Store.View(func(tx store.Tx) error {
		out = out[:0]
		signed, err := values(tx)
		if err != nil {
			return err
		}
		for part := range slices.Chunk(mailboxes, storePart) {
			store.Prefetch(tx, refsOf(part, all)...)
			for _, mailbox := range part {
				w := &wish{mailbox: mailbox, list: all[mailbox]}
				if _, err := store.GetJSON(tx, store.Directory, []byte(mailbox), &w.before); err != nil {
					return err
				}
				if err := w.choose(tx, signed); err != nil {
					return err
				}
				out = append(out, w)
			}
		}
		return nil
	})
	return out, err
}

// storePart is how many mailboxes the store is asked after at once, or written
// about in one transaction.
const storePart = 250

// refsOf names the records that the wishes of mailboxes are made of.
func refsOf(mailboxes []string, all map[string][]candidate) []store.Ref {
	var refs []store.Ref
	for _, mailbox := range mailboxes {
		refs = append(refs, store.Ref{Bucket: store.Directory, Key: []byte(mailbox)})
		best := all[mailbox][0]
		if serial, err := ca.ParseSerial(best.reference); err == nil && best.usable && best.proved {
			refs = append(refs, store.Ref{Bucket: store.Certificates, Key: serial[:]})
		}
	}
	return refs
}

// choose takes the newest that is proved, with the signed value about it.
func (w *wish) choose(tx store.Tx, signed map[string]signedBy) error {
	best := w.list[0]
	if !best.usable || !best.proved {
		return nil
	}
	serial, err := ca.ParseSerial(best.reference)
	if err != nil {
		return err
	}
	data := tx.Get(store.Certificates, serial[:])
	if w.request, err = store.DecodeRequest(data); err != nil {
		return err
	}
	w.chosen = &best
	by := signed[best.reference]
	if slices.ContainsFunc(w.list, func(c candidate) bool { return c.reference == by.signer && c.alive }) {
		w.signed, w.signer = by.value, by.signer
	}
	return nil
}

// wanted is the wish as the directory is told. Of this server's certificates only
// the chosen one stays; while nothing is proved, whatever can still be used does.
func (w *wish) wanted() directory.Wanted {
	out := directory.Wanted{Mailbox: w.mailbox, Signed: w.signed}
	if w.request != nil {
		out.Certificate = w.request.Certificate
	}
	known := make(map[[32]byte]candidate, len(w.list))
	for _, c := range w.list {
		known[c.fingerprint] = c
	}
	out.Stale = func(cert *x509.Certificate) bool {
		c, ours := known[sha256.Sum256(cert.Raw)]
		switch {
		case !ours:
			return false
		case w.chosen == nil:
			return !c.alive
		default:
			return c.reference != w.chosen.reference && c.reference != w.signer
		}
	}
	return out
}

// digest changes with anything that is wanted.
func (w *wish) digest() []byte {
	h := sha256.New()
	if w.chosen != nil {
		h.Write(w.chosen.fingerprint[:])
	}
	h.Write(w.signed)
	for _, c := range w.list {
		if c.usable {
			h.Write(c.fingerprint[:])
		}
	}
	return h.Sum(nil)
}

func (w *wish) due(now time.Time) bool {
	if string(w.before.Wish) != string(w.digest()) {
		return true
	}
	return !now.Before(w.before.Next) || w.before.Next.Sub(now) > fresh
}

// note files what became of a wish.
func (d *Desk) note(ctx context.Context, w *wish, o directory.Outcome) error {
	now := d.Now()
	after := filed{State: o.State, DN: o.DN, Problem: o.Problem, Wish: w.digest(), Seen: w.before.Seen, Next: now.Add(fresh)}
	switch o.State {
	case directory.Published:
		after.Certificate, after.Signed, after.Seen = w.chosen.reference, len(w.signed) > 0, now
	case directory.Withdrawn:
		after.Seen = now
		if w.chosen == nil && w.list[0].usable {
			after.State = Waiting
		}
	default:
		after.Failures = w.before.Failures + 1
		after.Next = now.Add(min(doubled(after.Failures), fresh))
	}
	if after.State != w.before.State || after.Certificate != w.before.Certificate {
		d.Log.Info("directory", "mailbox", w.mailbox, "state", after.State, "serial", serialOf(w), "problem", o.Problem)
	}
	err := d.Store.Update(ctx, func(tx store.Tx) error { return store.PutJSON(tx, store.Directory, []byte(w.mailbox), after) })
	if err == nil && d.Changed != nil && w.changed(after) {
		d.Changed(Change{Mailbox: w.mailbox, State: after.State, Serial: serialOf(w), Signed: after.Signed})
	}
	return err
}

// Change is what others find of a mailbox now.
type Change struct {
	Mailbox string
	// State is [directory.Published], [directory.Withdrawn] or [Waiting].
	State string
	// Serial is that of the certificate, empty where there is none; Signed says that
	// the device's value about it is there too.
	Serial string
	Signed bool
}

// changed says that others find something else than before. What had failed before
// may be as it was, for nobody knows.
func (w *wish) changed(after filed) bool {
	switch after.State {
	case directory.Published:
		return after.Certificate != w.before.Certificate || after.Signed != w.before.Signed
	case directory.Withdrawn, Waiting:
		return w.before.State != "" && w.before.State != directory.Withdrawn && w.before.State != Waiting
	default:
		return false
	}
}

func serialOf(w *wish) string {
	if w.chosen == nil {
		return ""
	}
	return w.chosen.serial
}

var (
	// ErrNoDirectory: there is none to write to.
	ErrNoDirectory = errors.New("this server has no directory")
	// ErrDirectory: it cannot be asked now.
	ErrDirectory = errors.New("the directory cannot be brought up to date")
	// ErrTurn: another server writes to it.
	ErrTurn = errors.New("another server writes to the directory")
)
